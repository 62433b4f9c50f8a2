"""Linear layers with frozen weights, multiplied in the layout that oneDNN takes fastest.

A plain product brings the weights into blocks every time, and adds the bias in a pass of its own.
Frozen weights are brought there once, for each of the two ways, and the bias is part of the
product. In float32 PyTorch multiplies with MKL, which takes a slow path on AMD's processors; oneDNN
does not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from softprompts.machine_memory import total_bytes

_LOG = logging.getLogger(__name__)

_LEAST_WEIGHTS = 64 * 64
"""Entries of a weight below which a product is so short that looking after it takes longer."""

_MOST_SHARE = 0.125
"""Largest part of the machine's memory that packed weights may take."""

_TOLERANCE = 1e-2


def prepack(model: nn.Module) -> int:
    """Let a model's linear layers multiply with packed weights; return how many do.

    A weight is packed when it is first multiplied with, and for the way back when a gradient first
    comes back. A layer computes as it did before whenever its weights ask for a gradient, or are
    not those it has now.

    Args:
        model: a model of transformers on the processor; the `forward` of its linear layers is
            replaced, but of those that have a hook of accelerate, which stands there.
    """
    chosen = list(_linear_layers(model))
    size = 2 * sum(layer.weight.numel() * layer.weight.element_size() for layer in chosen)
    most = int(_MOST_SHARE * total_bytes(torch.device("cpu")))
    if size > most:
        _LOG.info("weights are not packed: they would take %d bytes, more than %d", size, most)
        return 0
    for layer in chosen:
        layer.forward = _Prepacked(layer).forward
    return len(chosen)


def packed_bytes(model: nn.Module) -> int:
    """Return the bytes of what has been packed so far of a model's weights.

    Args:
        model: a model; copies of it that share its weights share what is packed.
    """
    packed = (getattr(vars(one).get("forward"), "__self__", None) for one in model.modules())
    weights = {id(one.weights): one.weights for one in packed if isinstance(one, _Prepacked)}
    return sum(one.num_bytes for one in weights.values())


def can_prepack(dtype: torch.dtype) -> bool:
    """Return whether this machine multiplies with packed weights, and faster than without.

    Args:
        dtype: of weights and inputs. For bfloat16 the processor must compute in it natively; for
            float32 it must be AMD's, and PyTorch's products MKL's.
    """
    if dtype == torch.bfloat16:
        has_names = hasattr(torch.cpu, "get_capabilities")
        known = torch.cpu.get_capabilities() if has_names else {}
        is_faster = bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    else:
        is_faster = dtype == torch.float32 and _is_slow_in_float32()
    return is_faster and _works(dtype)


@lru_cache(maxsize=1)
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
def _works(dtype: torch.dtype) -> bool:
    """Return whether packed products are, both ways, what they should be."""
    draws = torch.Generator().manual_seed(0)
    layer = nn.Linear(40, 48, dtype=dtype).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draws))
    given = [torch.randn(5, size, generator=draws).to(dtype) for size in (40, 48)]
    weight, bias = layer.weight.double(), layer.bias.double()
    expected = (given[0].double() @ weight.T + bias, given[1].double() @ weight)
    weights = _Weights(layer)
    try:
        found = [weights.multiply(given[0], layer.bias, 0), weights.multiply(given[1], None, 1)]
    except (AttributeError, RuntimeError) as error:
        _LOG.info("weights are not packed, since that fails: %s", error)
        return False
    return all(
        one.shape == other.shape and (one.double() - other).norm() <= _TOLERANCE * other.norm()
        for one, other in zip(found, expected, strict=True)
    )


def _linear_layers(model: nn.Module) -> Iterator[Any]:
    """Yield the layers whose weights are worth packing; `Conv1D` is one, with its weight turned."""
    from transformers.pytorch_utils import Conv1D

    for layer in model.modules():
        if type(layer) in (nn.Linear, Conv1D) and not hasattr(layer, "_hf_hook"):
            weight = cast(Tensor, layer.weight)
            if weight.numel() >= _LEAST_WEIGHTS and can_prepack(weight.dtype):
                yield layer


@final
class _Weights:
    """The weight of a layer, and its packed forms for the way there and back."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.place = layer.weight, layer.weight.data_ptr()
        self.dtype, self.version = layer.weight.dtype, layer.weight._version
        self._is_turned = not isinstance(layer, nn.Linear)
        self._packed: list[Tensor | None] = [None, None]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Weights:
        return self  # a copied layer that has weights of its own does not use it

    @property
    def num_bytes(self) -> int:
        """Bytes of the packed forms that there are."""
        there = sum(one is not None for one in self._packed)
        return there * self.weight.numel() * self.weight.element_size()

    def are_of(self, layer: nn.Linear) -> bool:
        """Return whether a layer still has this weight, as it was, and trains nothing."""
        weight, bias = layer.weight, layer.bias
        return (
            weight is self.weight
            and weight.data_ptr() == self.place
            and weight.dtype == self.dtype
            and weight._version == self.version
            and not weight.requires_grad
            and (bias is None or not bias.requires_grad)
        )

    def multiply(self, values: Tensor, bias: Tensor | None, way: int) -> Tensor:
        """Return `values @ weight.T + bias` for way 0, `values @ weight` for way 1.

        Args:
            values: shape `(..., in)` for way 0, `(..., out)` for way 1.
            bias: shape `(out,)`, or `None`.
            way: 0 or 1.
        """
        packed = self._packed[way]
        if packed is None:
            packed = self._packed[way] = self._pack(way)
        return torch.ops.mkldnn._linear_pointwise(values, packed, bias, "none", [], "")  # type: ignore[no-any-return]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _pack(self, way: int) -> Tensor:
        weight = self.weight.detach()
        matrix = weight.T if self._is_turned != bool(way) else weight
        return torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous())  # type: ignore[no-any-return]


@final
class _Prepacked:
    """What a linear layer does instead of its own `forward`."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer, self.weights = layer, _Weights(layer)

    def forward(self, values: Tensor) -> Tensor:
        """Return what the layer makes of values. Shape `(..., in)`, then `(..., out)`."""
        layer, weights = self.layer, self.weights
        is_other = values.dtype != weights.dtype or values.device.type != "cpu"
        if is_other or torch.is_autocast_enabled("cpu") or not weights.are_of(layer):
            return type(layer).forward(layer, values)
        if torch.is_grad_enabled() and values.requires_grad:
            return cast(Tensor, _Product.apply(values, weights, layer.bias, 0))  # type: ignore[no-untyped-call]
        return weights.multiply(values, layer.bias, 0)


class _Product(torch.autograd.Function):
    """Forgets what it multiplied: the weight gets no gradient."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weights: _Weights, bias: Tensor | None, way: int
    ) -> Tensor:
        ctx.weights, ctx.way = weights, way
        return weights.multiply(values, bias, way)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Product.apply(gradient, ctx.weights, None, 1 - ctx.way), None, None, None  # type: ignore[no-untyped-call]
