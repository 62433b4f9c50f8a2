"""GELU in one pass for bfloat16 on the processor, and its slope in one pass backwards."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from softprompts.fast.fused_attention import find_library
from softprompts.fast.hints import Bent, Hints


def is_fused(values: Tensor) -> bool:
    """Return whether GELU of values is computed here; PyTorch computes it of others."""
    return values.dtype == torch.bfloat16 and values.device.type == "cpu"


def gelu(values: Tensor, is_tanh: bool = False) -> Tensor:
    """Return `x P(X < x)` for a normal `X` (Hendrycks and Gimpel, arXiv 1606.08415).

    Args:
        values: any shape. What is not bfloat16 on the processor goes to PyTorch.
        is_tanh: take the paper's approximation of the share by a hyperbolic tangent.

    Returns:
        Of the same shape.
    """
    if not is_fused(values):
        return functional.gelu(values, approximate="tanh" if is_tanh else "none")
    output: Tensor = _Gelu.apply(values, is_tanh)  # type: ignore[no-untyped-call]
    return output


@final
@dataclass(frozen=True)
class FusedGelu:
    """GELU in the place of a module's forward.

    Attributes:
        is_tanh: take the share by a hyperbolic tangent.
        hints: are told what was made of what, so that the product behind takes the slope too.
    """

    is_tanh: bool
    hints: Hints

    def forward(self, values: Tensor) -> Tensor:
        """Return GELU of values; see `gelu`."""
        output = gelu(values, self.is_tanh)
        if output.requires_grad and is_fused(values) and values.is_contiguous():
            self.hints.note_bent(output, Bent(values, self.is_tanh))
        return output


def fuse_activations(model: nn.Module, hints: Hints) -> int:
    """Let a model's GELU modules compute it in one pass; return how many do.

    Args:
        hints: what is known of values that the model's modules are given.
        model: a model of transformers; its modules' `forward` is replaced, but of those that have a
            hook of accelerate, which stands there.
    """
    from transformers import activations

    kinds = dict.fromkeys(("GELUActivation",), False)
    kinds |= dict.fromkeys(("NewGELUActivation", "PytorchGELUTanh", "GELUTanh"), True)
    known = {
        getattr(activations, name): kind
        for name, kind in kinds.items()
        if hasattr(activations, name)
    }
    found = 0
    for module in model.modules():
        is_tanh = known.get(type(module))
        if isinstance(module, nn.GELU):
            is_tanh = module.approximate == "tanh"
        if is_tanh is not None and not hasattr(module, "_hf_hook"):
            module.forward = partial(FusedGelu(is_tanh, hints).forward)
            found += 1
    return found


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, is_tanh: bool) -> Tensor:
        ctx.save_for_backward(values)
        ctx.is_tanh = is_tanh
        return _run(values, None, is_tanh)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        return _run(values, gradient, ctx.is_tanh), None


def gelu_slope(values: Tensor, gradient: Tensor, is_tanh: bool) -> Tensor:
    """Make the gradient of GELU's output that of its input, in its place, and return it.

    Args:
        values: its input, bfloat16 on the processor, contiguous.
        gradient: of its output, contiguous. Shape of `values`.
        is_tanh: whether by a hyperbolic tangent.
    """
    return _write(gradient, values, gradient, is_tanh)


def _run(values: Tensor, gradient: Tensor | None, is_tanh: bool) -> Tensor:
    values = values.contiguous()
    gradient = None if gradient is None else gradient.contiguous()
    return _write(torch.empty_like(values), values, gradient, is_tanh)


def _write(output: Tensor, values: Tensor, gradient: Tensor | None, is_tanh: bool) -> Tensor:
    """Write GELU, or where a gradient of it is given that of the values, and return it."""
    find_library().gelu(
        ctypes.c_void_p(values.data_ptr()),
        ctypes.c_void_p(None if gradient is None else gradient.data_ptr()),
        ctypes.c_void_p(output.data_ptr()),
        ctypes.c_int64(values.numel()),
        ctypes.c_int32(is_tanh),
        ctypes.c_int32(torch.get_num_threads()),
    )
    return output
