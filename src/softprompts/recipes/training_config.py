"""The part of a run recipe that says how is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from softprompts.component import ComponentField
from softprompts.recipes.component_fields import AVERAGE, OPTIMIZER, SCHEDULE, TEMPERATURE
from softprompts.recipes.model import Section
from softprompts.registry import RATE_SUFFIX

DEFAULT_EPOCHS = 20
LEARNING_RATE, ABSOLUTE_LEARNING_RATE = 0.1, 0.01
"""The rate of rows where a recipe is silent: in their unit, but for a depth's own, and without."""

DEFAULT_READOUT_LEARNING_RATE = 0.01


def _unless_none(value: Any) -> Any:
    """Read `none` as nothing."""
    return None if value in ("none", {"kind": "none"}) else value


class TrainingConfig(Section):
    """How the prompt and the readout are trained.

    Attributes:
        optimizer: the optimizer and its options.
        learning_rate: of the prompt's rows, in its unit; null is 0.1, of rows in every layer 0.02,
            and 0.01 in absolute numbers.
        network_rate_multiplier: learning rate of networks that make rows, as a multiple of
            `learning_rate`; null is the rows' own default, or 1 in absolute numbers.
        selector_rate_multiplier: learning rate of learned positions, active lengths and pools,
            likewise.
        rate_multipliers: learning rates of further parts that a kind of rows names, likewise, by
            name.
        readout_learning_rate: of the readout's own parameters.
        backbone_learning_rate: of what is trained of the backbone; null is the adaptation's.
        schedule: how learning rates change over the updates.
        temperature: of learned selections, over the updates.
        average: what is scored, selected and kept: the average of the trained numbers over the
            last updates (`tail`), or over all, newer ones more (`exponential`); null, or `none`,
            takes them as they are.
        batch_size: examples per forward pass and run.
        epochs: passes over the training rows; 20 when `steps` is left out too.
        steps: updates; leave `epochs` out when it is set.
        accumulation_steps: batches per update.
        clip_norm: largest norm of a run's gradient; null does not clip.
        selection: report the best evaluation on held-out rows, or the last state.
        held_out_fraction: part of the training rows to hold out, where the task brings no others.
        num_evaluations: evaluations on the held-out rows, spread evenly.
        patience: evaluations without a gain before a run stops; null never stops early.
        checkpoint_every_steps: updates between checkpoints; null writes one at each evaluation.
    """

    optimizer: Annotated[ComponentField, OPTIMIZER] = Field(
        default_factory=lambda: OPTIMIZER.build({})
    )
    learning_rate: float | None = Field(None, gt=0, le=1e30)
    network_rate_multiplier: float | None = Field(None, gt=0, le=1e30)
    selector_rate_multiplier: float | None = Field(None, gt=0, le=1e30)
    rate_multipliers: dict[str, Annotated[float, Field(gt=0, le=1e30)]] | None = None
    readout_learning_rate: float = Field(DEFAULT_READOUT_LEARNING_RATE, gt=0, le=1e30)
    backbone_learning_rate: float | None = Field(None, gt=0, le=1e30)
    schedule: Annotated[ComponentField, SCHEDULE] = Field(
        default_factory=lambda: SCHEDULE.build({})
    )
    temperature: Annotated[ComponentField, TEMPERATURE] = Field(
        default_factory=lambda: TEMPERATURE.build({})
    )
    average: Annotated[Annotated[ComponentField, AVERAGE] | None, BeforeValidator(_unless_none)] = (
        None
    )
    batch_size: int = Field(16, ge=1)
    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    accumulation_steps: int = Field(1, ge=1)
    clip_norm: float | None = Field(1.0, gt=0)
    selection: Literal["held-out", "last"] = "held-out"
    held_out_fraction: float = Field(0.2, gt=0, lt=1)
    num_evaluations: int = Field(10, ge=1)
    patience: int | None = Field(None, ge=1)
    checkpoint_every_steps: int | None = Field(None, ge=1)

    @property
    def multipliers(self) -> dict[str, float]:
        """Learning rates of a prompt's parts as multiples of that of rows, where they are said."""
        fields = [name for name in type(self).model_fields if name.endswith(RATE_SUFFIX)]
        named = {name.removesuffix(RATE_SUFFIX): getattr(self, name) for name in fields}
        every = {**named, **(self.rate_multipliers or {})}
        return {group: value for group, value in every.items() if value is not None}


def multiplier_field(group: str) -> str:
    """Return the field of `training` that says the learning rate of a group of parameters."""
    field = group + RATE_SUFFIX
    return field if field in TrainingConfig.model_fields else f"rate_multipliers.{group}"
