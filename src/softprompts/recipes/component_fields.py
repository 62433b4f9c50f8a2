"""The fields of a run that hold a component, with the registry of each; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

from softprompts.backbones.adaptations.registry import ADAPTATIONS
from softprompts.component import ComponentOf
from softprompts.prompts.registry import (
    ACTIVE_LENGTHS,
    DEPTHS,
    INITIALIZERS,
    POOLS,
    POSITIONS,
    ROWS,
)
from softprompts.readouts.registry import READOUTS
from softprompts.regularizers.registry import REGULARIZERS
from softprompts.training.registry import (
    AVERAGES,
    OPTIMIZERS,
    SAMPLINGS,
    SCHEDULES,
    TEMPERATURES,
)

READOUT = ComponentOf(READOUTS, "linear")
ROWS_AXIS = ComponentOf(ROWS)
POOL_AXIS = ComponentOf(POOLS, "single")
POSITION_AXIS = ComponentOf(POSITIONS, "fixed")
ACTIVE_LENGTH_AXIS = ComponentOf(ACTIVE_LENGTHS, "fixed")
DEPTH_AXIS = ComponentOf(DEPTHS, "input")
INITIALIZER_AXIS = ComponentOf(INITIALIZERS, "vocabulary")
ADAPTATION = ComponentOf(ADAPTATIONS, "none")
OPTIMIZER = ComponentOf(OPTIMIZERS, "adamw")
TEMPERATURE = ComponentOf(TEMPERATURES, "exponential")
AVERAGE = ComponentOf(AVERAGES)
SCHEDULE = ComponentOf(SCHEDULES, "constant")
SAMPLING = ComponentOf(SAMPLINGS, "size")
REGULARIZER = ComponentOf(REGULARIZERS)

AXES: Mapping[str, ComponentOf] = {
    "initializer": INITIALIZER_AXIS,
    "rows": ROWS_AXIS,
    "pool": POOL_AXIS,
    "position": POSITION_AXIS,
    "active_length": ACTIVE_LENGTH_AXIS,
    "depth": DEPTH_AXIS,
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
