"""What a study recipe may say of tuning: which field, its candidates, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from softprompts.recipes.model import Section
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.seeds import read_seeds, seeds_schema

FIRST_SEED = 1000
"""The first seed of tuning, where a recipe says how many there are."""

DEFAULT_SEEDS = 2
FACTORS = (1 / 10, 1 / 3, 1, 3, 10)
"""Candidates of a number, as multiples of what the recipe says, where it names none."""


def _seeds(value: Any) -> tuple[int, ...]:
    return read_seeds(value, FIRST_SEED)


class Choice(Section):
    """What tuning chose for one variant at one point of the grid.

    Attributes:
        variant: the variant's name.
        point: values by dotted field.
        value: what the field is to be.
    """

    variant: str
    point: dict[str, Any] = Field(default_factory=dict)
    value: Any


class TuneConfig(Section):
    """A field whose value each variant chooses on held-out rows, at each point of the grid.

    Attributes:
        field: a number or component of a run, by its dotted name.
        values: the candidates, the same for every variant; null takes what the recipe says times
            1/10, 1/3, 1, 3 and 10.
        seeds: the seeds that candidates are trained with, or how many (2 are 1000 and 1001); those
            of the study are others.
        keep: one candidate in so many goes on to the next rung.
        chosen: what an earlier tuning chose; null tunes. A study's folder keeps it here.
    """

    field: str = Field(min_length=1)
    values: Annotated[list[Any], Field(min_length=2)] | None = None
    seeds: Annotated[
        tuple[int, ...],
        BeforeValidator(_seeds),
        PlainSerializer(list),
        WithJsonSchema(seeds_schema(DEFAULT_SEEDS)),
    ] = Field(
        default_factory=lambda: tuple(range(FIRST_SEED, FIRST_SEED + DEFAULT_SEEDS)), strict=False
    )
    keep: int = Field(3, ge=2)
    chosen: list[Choice] | None = None

    def choice(self, variant: str, point: Mapping[str, Any]) -> Choice | None:
        """Return what was chosen for a variant at a point, if anything was."""
        found = (c for c in self.chosen or () if c.variant == variant and c.point == point)
        return next(found, None)


@final
@dataclass(frozen=True)
class Tunable:
    """A variant at a point of the grid that is trained, so that it can be tuned.

    Attributes:
        variant: the variant's name.
        point: values by dotted field.
        data: its run recipe before tuning, without a seed.
        config: the same, checked.
    """

    variant: str
    point: Mapping[str, Any]
    data: Mapping[str, Any]
    config: RunConfig


def multiples(value: float) -> list[float]:
    """Return the candidates around a positive number: whole ones around a whole one.

    Example:
        >>> multiples(0.01)
        [0.001, 0.00333, 0.01, 0.03, 0.1]
        >>> multiples(4)
        [1, 4, 12, 40]
    """
    if isinstance(value, int):
        return list(dict.fromkeys(max(1, round(value * factor)) for factor in FACTORS))
    return [value if factor == 1 else float(f"{value * factor:.3g}") for factor in FACTORS]


def is_number(value: Any) -> bool:
    """Return whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
