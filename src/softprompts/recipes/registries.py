"""All kinds of components by the name of their list; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softprompts.backbones.adaptations.registry import ADAPTATIONS
from softprompts.backbones.registry import BACKBONES
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
from softprompts.training.registry import (
    AVERAGES,
    OPTIMIZERS,
    SAMPLINGS,
    SCHEDULES,
    TEMPERATURES,
)

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
    """Return the registry of a kind.

    Args:
        kind: one of `component_kinds`.

    Raises:
        RegistryError: if it does not load.
    """
    if kind in COMPONENTS:
        return COMPONENTS[kind]
    registry: Registry[Any] = load_point(named_points(GROUP, ADDED)[kind], "a registry")
    return registry
