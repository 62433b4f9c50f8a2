"""Where weights may lie: devices that torch can use, maps that fit a model, and hooks that move.

In a model that is spread over devices, a hook of accelerate stands in a module's `forward`. It
brings inputs to the module's device, and weights too where they lie elsewhere or on disk.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from softprompts.backbones.device_memory import SIZES, is_memory, numbered
from softprompts.backbones.sources import first_line
from softprompts.errors import BackboneError

_NUM_NAMED = 5


def check_device(device: str) -> torch.device:
    """Return a device that torch can use, by its name such as `cpu` or `cuda:0`."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise BackboneError(
            f"device must be usable by torch, but is {device!r}: {reason}"
        ) from error
    return place


def check_spreading(device_map: Any, max_memory: Any, is_compiled: bool) -> dict[str, Any]:
    """Return what transformers is told of spreading a model."""
    if max_memory and not isinstance(device_map, str):
        raise BackboneError(
            "max_memory must be None unless device_map is a strategy, such as auto, but is "
            f"{dict(max_memory)!r}."
        )
    if device_map is None:
        return {}
    if is_compiled:
        raise BackboneError(
            "compile must be false with device_map, whose modules move their inputs when they "
            "run, but is True."
        )
    if importlib.util.find_spec("accelerate") is None:
        raise BackboneError(
            f"device_map must be None without the package accelerate, but is {device_map!r}: "
            "install softprompts with its extra `spread`."
        )
    if isinstance(device_map, str):
        if not max_memory:
            return {"device_map": device_map}
        limits = numbered(max_memory)  # as accelerate reads them
        if not is_memory(limits):
            raise BackboneError(f"max_memory must be {SIZES}, but is {dict(max_memory)!r}.")
        return {"device_map": device_map, "max_memory": limits}
    for name, place in device_map.items():
        _check_place(name, place)
    return {"device_map": dict(device_map)}


def _check_place(name: Any, place: Any) -> None:
    """Check that a map puts a module on a device there is."""
    if place == "disk":
        return
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise BackboneError(
            f"device_map must name devices that torch can use, or disk, but {name!r} is "
            f"{place!r}: {first_line(error)}"
        ) from error


def check_modules(device_map: Any, build: Callable[[], nn.Module]) -> None:
    """Check that a map names modules of a model, and covers its weights.

    `build` returns the model; its weights take no memory. A strategy and `None` fit all models.
    """
    if not isinstance(device_map, Mapping):
        return
    with torch.device("meta"):
        model = build()
    known = {name for name, _ in model.named_modules()}
    unknown = [name for name in device_map if name not in known]
    if unknown:
        parts = ", ".join(name for name, _ in model.named_children())
        raise BackboneError(
            f"device_map must name modules of {type(model).__name__}, such as {parts}, but names "
            f"{_listed(unknown)}."
        )
    holders = tuple(f"{name}." if name else "" for name in device_map)
    missing = [name for name in model.state_dict() if not name.startswith(holders)]
    if missing:
        raise BackboneError(
            f"device_map must cover all weights of {type(model).__name__}, but leaves out "
            f"{_listed(missing)}."
        )


def _listed(names: list[Any]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(repr(name) for name in names[:_NUM_NAMED]) + more


def is_spread(model: nn.Module) -> bool:
    """Return whether modules of a model have hooks that move their inputs or weights."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def device_of(module: nn.Module) -> torch.device:
    """Return where a module runs, which is not where its weights lie while they are on disk."""
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
