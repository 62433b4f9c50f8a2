"""Backbones whose weights are kept in few bits: what may be done with them, and what not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from softprompts.backbones.frozen_model import FrozenModel
from softprompts.backbones.probing import read_once, short_input
from softprompts.errors import BackboneError


def quantization_of(model: Any) -> str | None:
    """Return how the weights of a model are quantized, as transformers calls it, or `None`."""
    if getattr(model, "hf_quantizer", None) is None and not getattr(model, "is_quantized", False):
        return None
    found = getattr(model.config, "quantization_config", None)
    method = found.get("quant_method") if isinstance(found, dict) else None
    method = method or getattr(found, "quant_method", "unknown")
    return str(getattr(method, "value", method))


def plain_parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the ordinary tensors that a tensor is made of; itself, where it is one."""
    if not hasattr(type(tensor), "__tensor_flatten__"):
        yield tensor.detach()
        return
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    for name in names:
        yield from plain_parts(getattr(tensor, name))


def as_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of an ordinary tensor, on whatever device it is."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def check_quantized(backbone: FrozenModel, needs_head: bool) -> None:
    """Check that a prompt can be trained in front of quantized weights.

    One short forward and backward tells: a gradient must reach every input embedding, and the
    weights must be the same after as before. Plain weights need no check.
    """
    method = quantization_of(backbone.model)
    if method is None:
        return
    about = f"quantized with {method},"
    before = _digest(backbone.model)
    with torch.enable_grad():
        embeddings = short_input(backbone).requires_grad_()
        read = read_once(backbone, needs_head, embeddings)
        if not read.requires_grad:
            raise BackboneError(f"weights {about} must let gradients through, but let none.")
        turned = read.float() * torch.linspace(-1, 1, read.shape[-1], device=read.device)
        (gradient,) = torch.autograd.grad(turned.sum(), embeddings)
    sizes = gradient.float().norm(dim=-1)
    if not bool(torch.isfinite(sizes).all() and (sizes > 0).all()):
        raise BackboneError(
            f"weights {about} must let a finite gradient through to every embedding, but its "
            f"sizes are {sizes.flatten().tolist()}."
        )
    if _digest(backbone.model) != before:
        raise BackboneError(
            f"weights {about} must stay as they are when they are read, but change."
        )


def _digest(model: nn.Module) -> str:
    state = hashlib.sha256()
    for name, value in model.state_dict().items():
        state.update(name.encode())
        if isinstance(value, Tensor):
            for part in plain_parts(value):
                state.update(as_bytes(part))
    return state.hexdigest()
