"""The identity of a run: equal for runs that compute the same numbers, and for no others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from softprompts.recipes.component_fields import COMPONENT_FIELDS
from softprompts.recipes.resolving import resolve
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.sources import ROWS_DIGEST, ROWS_FILE, WORD_VECTORS, WORD_VECTORS_DIGEST
from softprompts.registry import Registry
from softprompts.regularizers.registry import PERTURBATIONS, REGULARIZERS
from softprompts.tasks.registry import TASKS

PRESENTATION = (
    ("prompt", "method"),
    ("prompt", "from_run", "folder"),
    ("backbone", "device"),
    ("backbone", "gradient_checkpointing"),
    ("backbone", "device_map"),
    ("backbone", "max_memory"),
    ("task", "data_dir"),
    ("mixture", "tasks", "*", "data_dir"),
    ("training", "checkpoint_every_steps"),
)
"""Fields that say how a run is named, placed or stored, not what it computes; `*` is any key."""

LATE = ((("backbone", "compile"), False), (("prompt", "unit"), "absolute"))
"""Fields that came late, with what runs had before them: left out where they have it."""


def identity(config: RunConfig) -> str:
    """Return the fingerprint of what a run computes: 16 hexadecimal digits, alike on every machine.

    It covers the resolved configuration without the fields in `PRESENTATION`, and the versions of
    the components it names. Fields that are null, and an empty list of regularizers, are left out,
    so a later field that may be null leaves old identities as they are. So are fields and options
    that came late, where they have their default.
    """
    config = resolve(config)
    content = {"config": _without_nulls(computed(config)), "versions": versions(config)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def computed(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as plain JSON values, without the fields in `PRESENTATION`."""
    data = config.model_dump(mode="json")
    for path in PRESENTATION:
        _drop(data, path)
    for (section, key), default in LATE:
        if data[section][key] == default:
            del data[section][key]
    for _, registry, component in _components(data):
        for name, option in registry.entry(component["kind"]).options.items():
            if option.is_late and component[name] == option.default:
                del component[name]
        if component.get(WORD_VECTORS_DIGEST) is not None:
            component.pop(WORD_VECTORS, None)
    initializer = data["prompt"]["initializer"] or {}
    if initializer.get(ROWS_DIGEST) is not None:
        initializer.pop(ROWS_FILE, None)
    if not data["regularizers"]:
        del data["regularizers"]
    return data


def _components(data: Mapping[str, Any]) -> Iterator[tuple[str, Registry[Any], dict[str, Any]]]:
    """Yield the part of the run, the registry and the plain data of each component named."""
    for field, axis in COMPONENT_FIELDS.items():
        component: Any = data
        for key in field.split("."):
            component = None if component is None else component[key]
        if component is not None:
            yield field.rpartition(".")[2], axis.registry, component
    for number, regularizer in enumerate(data["regularizers"]):
        yield f"regularizers.{number}", REGULARIZERS, regularizer
        perturbation = regularizer.get("perturbation")
        if perturbation is not None:
            yield f"regularizers.{number}.perturbation", PERTURBATIONS, perturbation


def _drop(data: Any, path: Sequence[str]) -> None:
    """Delete a field of nested mappings; a section that is null has none."""
    key, *rest = path
    if data is None:
        return
    if not rest:
        del data[key]
        return
    for item in data.values() if key == "*" else [data[key]]:
        _drop(item, rest)


def versions(config: RunConfig) -> dict[str, int]:
    """Return the versions of the components that a resolved run names, by part."""
    parts = _components(config.model_dump(mode="json"))
    found = {part: registry.entry(one["kind"]).version for part, registry, one in parts}
    if config.mixture is None:
        of_tasks = {"task": config.task_label}
    else:
        of_tasks = {f"tasks.{name}": task.name for name, task in config.tasks.items()}
    return {**{part: TASKS.entry(name).version for part, name in of_tasks.items()}, **found}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
