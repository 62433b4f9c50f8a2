"""What a prompt chose in some updates or on a split, as a record of a run says it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from softprompts.errors import StorageError
from softprompts.lab.reports.records import require
from softprompts.problems import describe
from softprompts.training.stored import Count, Stored

EVERYTHING = "all inputs"
"""What stands for all labels together."""

UNITS = {"position": "rows in front", "length": "active rows"}
"""What may be selected among `length + 1` values, by its key in a run's records, and its unit."""


Number = Annotated[
    float | None,
    BeforeValidator(lambda x: x if not isinstance(x, float) or math.isfinite(x) else None),
]
"""`None` where it is not finite, as in the last update of a diverged run."""

Weights = Annotated[tuple[Number, ...], Field(strict=False)]
"""A number per set of a pool."""


class Selected(Stored):
    """How inputs were spread over the values of a selector, from 0 to the prompt's length.

    Attributes:
        counts: inputs per value.
        entropy: mean entropy of the selector in nats.
    """

    counts: Annotated[tuple[Count, ...], Field(strict=False)]
    entropy: Number

    @property
    def shares(self) -> tuple[float, ...]:
        """The counts over their sum; zeros where no input was counted."""
        total = sum(self.counts) or 1
        return tuple(count / total for count in self.counts)


class Mixed(Stored):
    """How the sets of a pool were mixed.

    Attributes:
        weights: mean weight of each set over inputs.
        stds: standard deviation of each weight over inputs; empty where a run did not log it.
        by_class: the weights for the inputs of each label, where labels were known.
    """

    weights: Annotated[Weights, Field(min_length=1)]
    stds: Weights = ()
    by_class: Mapping[str, Weights] = {}
    stds_by_class: Mapping[str, Weights] = {}

    @property
    def lines(self) -> tuple[tuple[str, Weights, Weights], ...]:
        """All inputs, then each label: what it is, weights, standard deviations."""
        classes = ((k, v, self.stds_by_class.get(k, ())) for k, v in self.by_class.items())
        return ((EVERYTHING, self.weights, self.stds), *classes)

    def few_lines(self, most: int) -> tuple[tuple[str, Weights, Weights], ...]:
        """Return `lines`; of too many labels, those whose weights differ most from the mean."""
        gaps = {
            label: sum(abs((a or 0.0) - (b or 0.0)) for a, b in zip(own, self.weights, strict=True))
            for label, own in self.by_class.items()
        }
        kept = {EVERYTHING, *sorted(gaps, key=lambda label: -gaps[label])[:most]}
        return tuple(line for place, line in enumerate(self.lines) if not place or line[0] in kept)


class Chosen(Stored):
    """What was chosen in some updates, counted from 1, or on a split after an update."""

    first_step: Count
    last_step: Count
    temperature: Number = None
    position: Selected | None = None
    length: Selected | None = None
    pool: Mixed | None = None

    @property
    def selected(self) -> dict[str, Selected]:
        """How inputs were spread, by selector."""
        return {name: one for name in UNITS if (one := getattr(self, name)) is not None}

    @property
    def parts(self) -> tuple[str, ...]:
        """What is chosen: names of selectors, and `pool`."""
        return (*self.selected, *(("pool",) if self.pool else ()))

    def require_like(self, first: Chosen, place: str) -> None:
        """Check that it has the parts and the pool of the first update; `place` is its line.

        Raises:
            StorageError: if it has others.
        """
        wanted = " ".join(first.parts)
        require(self.parts == first.parts, place, "what is chosen", wanted, self.parts)
        if self.pool and first.pool:
            size, before = len(self.pool.weights), len(first.pool.weights)
            wanted = f"{before} numbers, as before"
            require(size == before, place, "`pool.weights`", wanted, size)


def read_chosen(record: Mapping[str, Any], place: str, length: int) -> Chosen:
    """Return what a record says of choices.

    Raises:
        StorageError: if it says something else than a run writes.
    """
    step = record.get("step")
    require_count(step, place, "`step`")
    content = {**record, "first_step": step, "last_step": step}
    try:
        chosen = Chosen.model_validate(content)
    except ValidationError as error:
        problems = describe(error, content, Chosen)
        raise StorageError(f"{place}: {' '.join(one.text for one in problems)}") from None
    text = f"{length + 1} counts, one per value from 0 to the prompt's length"
    for name, one in chosen.selected.items():
        require(len(one.counts) == length + 1, place, f"`{name}.counts`", text, one.counts)
    if pool := chosen.pool:
        size = len(pool.weights)
        text = f"{size} numbers, one per set"
        require(len(pool.stds) in (0, size), place, "`pool.stds`", text, pool.stds)
        text = f"{size} weights per label"
        for name in ("by_class", "stds_by_class"):
            for line in getattr(pool, name).values():
                require(len(line) == size, place, f"`pool.{name}`", text, line)
    return chosen


def require_count(value: Any, place: str, name: str) -> None:
    """Refuse a record where a value is no whole number, or a negative one; see `require`."""
    require(type(value) is int and 0 <= value < 2**63, place, name, "a whole number", value)
