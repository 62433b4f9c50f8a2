"""All kinds of components, and the fields of a run that hold one; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softprompts.backbones.adaptations.registry import ADAPTATIONS
from softprompts.backbones.registry import BACKBONES
from softprompts.component import ComponentOf
from softprompts.entry_points import load_point, named_points
from softprompts.metrics.registry import METRICS
from softprompts.prompts.registry import (
    ACTIVE_LENGTHS,
    DEPTHS,
    INITIALIZERS,
    POOLS,
    POSITIONS,
    ROWS,
)
from softprompts.readouts.registry import READOUTS
from softprompts.registry import Registry
from softprompts.regularizers.registry import PERTURBATIONS, REGULARIZERS
from softprompts.training.registry import AVERAGES, OPTIMIZERS, SAMPLINGS, SCHEDULES, TEMPERATURES

READOUT = ComponentOf(READOUTS, "linear")
ADAPTATION = ComponentOf(ADAPTATIONS, "none")
OPTIMIZER = ComponentOf(OPTIMIZERS, "adamw")
TEMPERATURE = ComponentOf(TEMPERATURES, "exponential")
AVERAGE = ComponentOf(AVERAGES)
SCHEDULE = ComponentOf(SCHEDULES, "constant")
SAMPLING = ComponentOf(SAMPLINGS, "size")
REGULARIZER = ComponentOf(REGULARIZERS)

AXES: Mapping[str, ComponentOf] = {
    "initializer": ComponentOf(INITIALIZERS, "vocabulary"),
    "rows": ComponentOf(ROWS),
    "pool": ComponentOf(POOLS, "single"),
    "position": ComponentOf(POSITIONS, "fixed"),
    "active_length": ComponentOf(ACTIVE_LENGTHS, "fixed"),
    "depth": ComponentOf(DEPTHS, "input"),
}
"""The axes of a prompt by their recipe key; a preset has an attribute of each name."""

COMPONENT_FIELDS: Mapping[str, ComponentOf] = {
    "readout": READOUT,
    "adaptation": ADAPTATION,
    "mixture.sampling": SAMPLING,
    **{f"prompt.{name}": axis for name, axis in AXES.items()},
    "training.optimizer": OPTIMIZER,
    "training.schedule": SCHEDULE,
    "training.temperature": TEMPERATURE,
    "training.average": AVERAGE,
}
"""The fields of a run that hold one component; regularizers are a list of some."""

COMPONENTS: Mapping[str, Registry[Any]] = {
    "rows": ROWS,
    "pools": POOLS,
    "positions": POSITIONS,
    "active-lengths": ACTIVE_LENGTHS,
    "depths": DEPTHS,
    "initializers": INITIALIZERS,
    "adaptations": ADAPTATIONS,
    "readouts": READOUTS,
    "regularizers": REGULARIZERS,
    "perturbations": PERTURBATIONS,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "temperatures": TEMPERATURES,
    "averages": AVERAGES,
    "samplings": SAMPLINGS,
    "backbones": BACKBONES,
    "metrics": METRICS,
}
"""The registries by the plural of their kind, as `softprompts list` says it."""

GROUP = "softprompts.components"
"""Entry points that lead to registries more, of what no recipe names."""

ADDED = {
    "executors": "softprompts.lab.studies.executors.registry:EXECUTORS",
    "trackers": "softprompts.lab.tracking.registry:TRACKERS",
}
"""Those of this library, as `pyproject.toml` has them."""


def component_kinds() -> tuple[str, ...]:
    """Return the plural of every kind that has a registry."""
    return (*COMPONENTS, *named_points(GROUP, ADDED))


def component_registry(kind: str) -> Registry[Any]:
    """Return the registry of one of `component_kinds`."""
    if kind in COMPONENTS:
        return COMPONENTS[kind]
    registry: Registry[Any] = load_point(named_points(GROUP, ADDED)[kind], "a registry")
    return registry
