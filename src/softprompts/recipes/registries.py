"""All kinds of components by the name of their list; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softprompts.backbones.adaptations.registry import ADAPTATIONS
from softprompts.backbones.registry import BACKBONES
from softprompts.lab.studies.executors.registry import EXECUTORS
from softprompts.lab.tracking.registry import TRACKERS
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
    "executors": EXECUTORS,
    "trackers": TRACKERS,
}
"""The registries by the plural of their kind, as `softprompts list` says it."""
