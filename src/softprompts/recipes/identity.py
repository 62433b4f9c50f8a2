"""The identity of a run: equal for runs that compute the same numbers, and for no others."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from softprompts.prompts.registry import INITIALIZERS, POOLS, POSITIONS, ROWS
from softprompts.readouts.registry import READOUTS
from softprompts.recipes.resolving import resolve
from softprompts.recipes.schema import RunConfig
from softprompts.tasks.registry import TASKS
from softprompts.training.registry import OPTIMIZERS, SCHEDULES, TEMPERATURES

PRESENTATION = (
    ("prompt", "method"),
    ("backbone", "device"),
    ("task", "data_dir"),
    ("training", "checkpoint_every_steps"),
)
"""Fields that say how a run is named, placed or stored, not what it computes."""


def identity(config: RunConfig) -> str:
    """Return the fingerprint of what a run computes.

    It covers the resolved configuration without the fields in `PRESENTATION`, and the versions of
    the components it names. Fields that are null are left out, so a later field that may be null
    leaves old identities as they are.

    Args:
        config: a run, resolved or not.

    Returns:
        16 hexadecimal digits, the same on every machine.

    Raises:
        RecipeError: if fields that are each right do not go together.
    """
    config = resolve(config)
    content = {"config": _without_nulls(computed(config)), "versions": versions(config)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def computed(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as plain JSON values, without the fields in `PRESENTATION`."""
    data = config.model_dump(mode="json")
    for section, name in PRESENTATION:
        del data[section][name]
    return data


def versions(config: RunConfig) -> dict[str, int]:
    """Return the versions of the components that a resolved run names, by part.

    Args:
        config: a resolved run.

    Returns:
        The version of each registry entry, by part of the run.
    """
    prompt, training = config.prompt, config.training
    named = {
        "initializer": (INITIALIZERS, prompt.initializer),
        "rows": (ROWS, prompt.rows),
        "pool": (POOLS, prompt.pool),
        "position": (POSITIONS, prompt.position),
        "readout": (READOUTS, config.readout),
        "optimizer": (OPTIMIZERS, training.optimizer),
        "schedule": (SCHEDULES, training.schedule),
        "temperature": (TEMPERATURES, training.temperature),
    }
    found = {
        part: registry.entry(component.kind).version  # type: ignore[attr-defined]
        for part, (registry, component) in named.items()
        if component is not None
    }
    return {"task": TASKS.entry(config.task.name).version, **found}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
