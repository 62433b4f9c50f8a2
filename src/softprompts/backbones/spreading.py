"""Models that are spread over devices: hooks of accelerate move what their modules read and give.

A hook stands in a module's `forward`. It brings inputs to the module's device, and weights too
where they lie elsewhere or on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def is_spread(model: nn.Module) -> bool:
    """Return whether modules of a model have hooks that move their inputs or weights."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def device_of(module: nn.Module) -> torch.device:
    """Return where a module runs, which is not where its weights lie while they are on disk.

    Args:
        module: a module with weights.
    """
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        found = getattr(one, "execution_device", None)
        if found is not None:
            return torch.empty(0, device=found).device
    return next(module.parameters()).device


def map_of(model: Any) -> dict[str, int | str] | None:
    """Return where the modules of a model lie, as a recipe says it; `None` where it is whole."""
    if not is_spread(model):
        return None
    named = getattr(model, "hf_device_map", {})
    return {name: at if isinstance(at, int) else str(at) for name, at in named.items()}


@contextmanager
def wrapped_forwards(
    layers: Sequence[nn.Module], wrap: Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Wrap the `forward` of modules while this lasts; what was there before comes back after.

    Args:
        layers: the modules, each once.
        wrap: takes a module and its forward, and returns what runs instead.
    """
    before = [layer.__dict__.get("forward") for layer in layers]
    for layer in layers:
        layer.forward = wrap(layer, layer.forward)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:  # a hook's
                layer.forward = own
