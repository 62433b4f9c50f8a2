"""Frozen weights in the layout that oneDNN multiplies with fastest, made once for each way.

A plain product brings the weights into blocks every time, and adds the bias in a pass of its own.
Frozen weights are brought there once, for each of the two ways, and the bias is part of the
product. In float32 PyTorch multiplies with MKL, which takes a slow path on AMD's processors; oneDNN
does not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import skip_init

from softprompts.fast.fused_activation import gelu_slope
from softprompts.fast.hints import Hints
from softprompts.fast.kernels.building import find_capabilities
from softprompts.fast.spans import Wanted

_LOG = logging.getLogger(__name__)

_TOLERANCE = 1e-2


def can_prepack(dtype: torch.dtype) -> bool:
    """Return whether this machine multiplies with laid-out weights, and faster than without.

    Args:
        dtype: of weights and inputs. For bfloat16 the processor must compute in it natively; for
            float32 it must be AMD's, and PyTorch's products MKL's.
    """
    if dtype == torch.bfloat16:
        known = find_capabilities()
        is_faster = bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    else:
        is_faster = dtype == torch.float32 and _is_slow_in_float32()
    return is_faster and works(dtype)


@cache
def _is_slow_in_float32() -> bool:
    """Return whether PyTorch multiplies with MKL on a processor of AMD."""
    try:
        is_amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        is_amd = False
    return is_amd and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]


@cache
@torch.inference_mode(False)
@torch.no_grad()
def works(dtype: torch.dtype) -> bool:
    """Return whether laid-out products are, both ways, what they should be; tried once."""
    draws = torch.Generator().manual_seed(0)
    # without a draw: the global generator stays as it is
    layer: nn.Linear = skip_init(nn.Linear, 40, 48, dtype=dtype)  # type: ignore[no-untyped-call]
    layer.requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draws))
    given = [torch.randn(5, size, generator=draws).to(dtype) for size in (40, 48)]
    weight, bias = layer.weight.double(), layer.bias.double()
    expected = (given[0].double() @ weight.T + bias, given[1].double() @ weight)
    weights = Weights([layer])
    try:
        found = [weights.multiply(given[0]), weights.multiply_back(given[1], (0,))]
    except (AttributeError, RuntimeError) as error:
        _LOG.info("weights are not laid out, since that fails: %s", error)
        return False
    return all(
        one.shape == other.shape and (one.double() - other).norm() <= _TOLERANCE * other.norm()
        for one, other in zip(found, expected, strict=True)
    )


@final
class Weights:
    """Weights of layers that read the same values, one above the other, and their laid-out forms.

    Args:
        layers: one or more, of as many inputs each.

    Attributes:
        sizes: outputs of each layer.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self._parameters = [(layer.weight, layer.bias) for layer in layers]
        self._states = _states(layers)
        self._turned = [not isinstance(layer, nn.Linear) for layer in layers]
        self.dtype = layers[0].weight.dtype
        self.sizes = [len(self.matrix(number)) for number in range(len(layers))]
        self._there: Tensor | None = None
        self._bias: Tensor | None = None
        self._back: dict[tuple[int, ...], Tensor] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes of the laid-out forms that there are."""
        found = [*self._back.values(), *([] if self._there is None else [self._there])]
        return sum(one.numel() * one.element_size() for one in found)

    def are_of(self, layers: Sequence[nn.Linear]) -> bool:
        """Return whether layers still have these weights, as they were, and train nothing."""
        return _states(layers) == self._states

    def multiply(self, values: Tensor) -> Tensor:
        """Return `values @ weights.T + bias`. Shape `(..., in)`, then `(..., out)`."""
        if self._there is None:
            there, self._bias = self._lay_out()
            self._there = there  # last: a copy in another thread may look
        return _operators()[0](values, self._there, self._bias, "none", [], "")  # type: ignore[no-any-return]

    def multiply_back(self, gradients: Tensor, numbers: tuple[int, ...]) -> Tensor:
        """Return `gradients @ weights`. Shape `(..., out)`, then `(..., in)`.

        Args:
            gradients: of the outputs of some of the layers, side by side.
            numbers: those layers.
        """
        laid_out = self._back.get(numbers)
        if laid_out is None:
            laid_out = self._back[numbers] = self._lay_out_back(numbers)
        return _operators()[0](gradients, laid_out, None, "none", [], "")  # type: ignore[no-any-return]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _lay_out(self) -> tuple[Tensor, Tensor | None]:
        matrix = self._joint(range(len(self.sizes)))
        bias = None
        if any(bias is not None for _, bias in self._parameters):
            parts = zip(self._parameters, self.sizes, strict=True)
            bias = torch.cat(
                [
                    matrix.new_zeros(size) if bias is None else bias.detach()
                    for (_, bias), size in parts
                ]
            )
        return _operators()[1](matrix), bias

    @torch.inference_mode(False)
    @torch.no_grad()
    def _lay_out_back(self, numbers: Sequence[int]) -> Tensor:
        return _operators()[1](self._joint(numbers).T)  # type: ignore[no-any-return]

    def _joint(self, numbers: Sequence[int]) -> Tensor:
        """Return weights one above the other, a single one without a copy, which takes longer."""
        found = [self.matrix(number) for number in numbers]
        return torch.cat(found) if len(found) > 1 else found[0]

    def matrix(self, number: int) -> Tensor:
        """Return a layer's weight. Shape `(out, in)`."""
        weight = self._parameters[number][0].detach()
        return weight.T if self._turned[number] else weight


def _states(layers: Sequence[nn.Linear]) -> list[Any]:
    """Return what differs when a parameter is another, was changed, or is trained."""
    return [
        (id(one), one.data_ptr(), one._version, one.requires_grad)
        for layer in layers
        for one in (layer.weight, layer.bias)
        if one is not None
    ]


@cache
def _operators() -> tuple[Any, Any]:
    """Return PyTorch's product with laid-out weights, and what lays them out."""
    known = torch.ops.mkldnn
    return known._linear_pointwise.default, known._reorder_linear_weight.default


def multiply(values: Tensor, weights: Weights, hints: Hints) -> tuple[Tensor, ...]:
    """Return what each layer makes of values, with a gradient where one is asked for."""
    if not (values.requires_grad and torch.is_grad_enabled()):
        return _split(weights.multiply(values), weights.sizes)
    bent = hints.bent_of(values)
    if bent is None:
        return _Product.apply(values, weights, hints.wanted)  # type: ignore[no-any-return, no-untyped-call]
    given = (bent.values, weights, values.detach(), bent.is_tanh)
    return _ProductOfGelu.apply(*given)  # type: ignore[no-any-return, no-untyped-call]


class _Product(torch.autograd.Function):
    """Keeps nothing of the values: weights get no gradient."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weights: Weights, wanted: Wanted | None
    ) -> tuple[Tensor, ...]:
        ctx.weights, ctx.wanted = weights, wanted
        ctx.set_materialize_grads(False)
        return _split(weights.multiply(values), weights.sizes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        known = {number: one for number, one in enumerate(gradients) if one is not None}
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            parts = [one @ ctx.weights.matrix(number) for number, one in known.items()]
            return torch.stack(parts).sum(dim=0), None, None
        return _multiply_back(ctx.weights, gradients, ctx.wanted), None, None


class _ProductOfGelu(torch.autograd.Function):
    """GELU with the product behind it: its slope is taken where the gradient of its output lies."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weights: Weights, output: Tensor, is_tanh: bool
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(values)
        ctx.weights, ctx.is_tanh = weights, is_tanh
        ctx.set_materialize_grads(False)
        return _split(weights.multiply(output), weights.sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None, None]:
        (values,) = ctx.saved_tensors
        found = gelu_slope(values, _multiply_back(ctx.weights, gradients), ctx.is_tanh)
        return found, None, None, None


def _multiply_back(
    weights: Weights, gradients: Sequence[Tensor | None], wanted: Wanted | None = None
) -> Tensor:
    """Return the gradient of what layers read; of those that have none nothing comes back.

    It is 0 where none is wanted.
    """
    known = {number: one for number, one in enumerate(gradients) if one is not None}
    joint, numbers = _side_by_side(list(known.values())), tuple(known)
    if wanted is None or joint.shape[:-1] != (1, wanted.size):
        return weights.multiply_back(joint, numbers)
    found = weights.multiply_back(joint[0].index_select(0, wanted.places), numbers)
    whole = found.new_zeros(wanted.size, found.shape[1])
    return whole.index_copy_(0, wanted.places, found)[None]


def _split(joint: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the parts of the last dimension, in the same memory, but as tensors of their own."""
    if len(sizes) == 1:
        return (joint,)
    places = accumulate(sizes, initial=int(joint.storage_offset()))
    shape, steps, memory = tuple(joint.shape[:-1]), joint.stride(), joint.untyped_storage()
    return tuple(
        joint.new_empty(0).set_(memory, place, (*shape, size), steps)
        for size, place in zip(sizes, places, strict=False)
    )


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Return parts of a last dimension in one tensor: without copying where they lie so."""
    first = parts[0]
    if len(parts) == 1:
        return first
    width = sum(part.shape[-1] for part in parts)
    place, steps = first.data_ptr(), first.stride()
    for part in parts:
        is_next = part.data_ptr() == place and part.stride() == steps
        if not is_next or steps[-2:] != (width, 1):
            return torch.cat(tuple(parts), dim=-1)
        place += part.shape[-1] * part.element_size()
    return first.as_strided((*first.shape[:-1], width), steps)
