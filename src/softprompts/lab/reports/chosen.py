"""What a prompt chose in some updates or on a split, as a record of a run says it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from softprompts.lab.reports.records import require

Weights = tuple[float | None, ...]
"""A number per set of a pool."""

EVERYTHING = "all inputs"
"""What stands for all labels together."""

SELECTORS = ("position", "length")
"""What may be selected among `length + 1` values, by its key in a run's records."""

UNITS = {"position": "rows in front", "length": "active rows"}
"""What the values of each selector count."""


@final
@dataclass(frozen=True)
class Selected:
    """How inputs were spread over the values of a selector.

    Attributes:
        counts: inputs per value, from 0 to the prompt's length.
        entropy: mean entropy of the selector in nats; `None` where it is not finite.
    """

    counts: tuple[int, ...]
    entropy: float | None

    @property
    def shares(self) -> tuple[float, ...]:
        """The counts over their sum; zeros where no input was counted."""
        total = sum(self.counts) or 1
        return tuple(count / total for count in self.counts)


@final
@dataclass(frozen=True)
class Mixed:
    """How the sets of a pool were mixed.

    Attributes:
        weights: mean weight of each set over inputs; `None` where it is not finite.
        by_class: the same for the inputs of each label, where labels were known.
        stds: standard deviation of each weight over inputs; empty where a run did not log it.
        stds_by_class: the same for the inputs of each label.
    """

    weights: Weights
    by_class: Mapping[str, Weights] = field(default_factory=dict)
    stds: Weights = ()
    stds_by_class: Mapping[str, Weights] = field(default_factory=dict)

    @property
    def lines(self) -> tuple[tuple[str, Weights, Weights], ...]:
        """All inputs, then each label: what it is, weights, standard deviations."""
        classes = ((k, v, self.stds_by_class.get(k, ())) for k, v in self.by_class.items())
        return ((EVERYTHING, self.weights, self.stds), *classes)

    def apart(self, most: int) -> tuple[str, ...]:
        """Return labels in their order; of too many, those whose weights differ most from the mean.

        Args:
            most: how many at most.
        """
        gaps = {k: _gap(line, self.weights) for k, line in self.by_class.items()}
        kept = set(sorted(gaps, key=lambda label: -gaps[label])[:most])
        return tuple(label for label in gaps if label in kept)


@final
@dataclass(frozen=True)
class Chosen:
    """What was chosen in some updates, or on a split after an update.

    Attributes:
        first_step: the first of the updates, counted from 1.
        last_step: the last of them; the same for a split.
        selected: per selector that is learned, how inputs were spread.
        pool: how the pool was mixed, where there is one.
        temperature: mean temperature of the updates, where there was one.
    """

    first_step: int
    last_step: int
    selected: Mapping[str, Selected]
    pool: Mixed | None = None
    temperature: float | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """What is chosen: names of selectors, and `pool`."""
        return (*self.selected, *(("pool",) if self.pool else ()))


def read_chosen(record: Mapping[str, Any], place: str, length: int) -> Chosen:
    """Return what a record says of choices.

    Args:
        record: the record.
        place: its file and line.
        length: the prompt's length.

    Raises:
        StorageError: if it says something else than a run writes.
    """
    step = record.get("step")
    require(is_count(step), place, "`step`", "a whole number", step)
    selected = {
        name: _read_selected(record[name], place, name, length)
        for name in SELECTORS
        if name in record
    }
    pool = _read_pool(record["pool"], place) if "pool" in record else None
    temperature = None
    if "temperature" in record:
        temperature = _read_number(record["temperature"], place, "temperature")
    return Chosen(int(step or 0), int(step or 0), selected, pool, temperature)


def _read_selected(value: Any, place: str, name: str, length: int) -> Selected:
    counts = value.get("counts") if isinstance(value, dict) else None
    is_right = isinstance(counts, list) and len(counts) == length + 1
    text = f"{length + 1} counts, one per value from 0 to the prompt's length"
    require(is_right and all(map(is_count, counts or ())), place, f"`{name}.counts`", text, value)
    entropy = _read_number(value.get("entropy"), place, f"{name}.entropy")
    return Selected(tuple(counts or ()), entropy)


def _read_pool(value: Any, place: str) -> Mixed:
    content = value if isinstance(value, dict) else {}
    weights = _read_weights(content.get("weights"), place, "pool.weights")
    by_class = _read_classes(content, place, "by_class", len(weights))
    if "stds" not in content:  # a run of an earlier version
        return Mixed(weights, by_class)
    stds = _read_weights(content["stds"], place, "pool.stds")
    text = f"{len(weights)} numbers, one per set"
    require(len(stds) == len(weights), place, "`pool.stds`", text, stds)
    return Mixed(
        weights, by_class, stds, _read_classes(content, place, "stds_by_class", len(weights))
    )


def _read_classes(
    content: Mapping[str, Any], place: str, key: str, size: int
) -> dict[str, Weights]:
    classes, name = content.get(key, {}), f"pool.{key}"
    require(isinstance(classes, dict), place, f"`{name}`", "an object", classes)
    found = {k: _read_weights(v, place, name) for k, v in classes.items()}
    for line in found.values():
        require(len(line) == size, place, f"`{name}`", f"{size} weights per label", line)
    return found


def _read_weights(value: Any, place: str, name: str) -> Weights:
    is_right = isinstance(value, list) and bool(value)
    require(is_right, place, f"`{name}`", "a list of numbers", value)
    return tuple(_read_number(item, place, name) for item in value)


def _read_number(value: Any, place: str, name: str) -> float | None:
    """Return a number; `None` where it is not finite, as in the last update of a diverged run."""
    is_right = isinstance(value, float | int) and not isinstance(value, bool)
    require(is_right, place, f"`{name}`", "a number", value)
    return float(value) if math.isfinite(value) else None


def require_same(chosen: Chosen, updates: Sequence[Chosen], place: str) -> None:
    """Check that a record has the parts and the pool of the first update.

    Args:
        chosen: what the record says.
        updates: what updates said, the first one first.
        place: the record's file and line.

    Raises:
        StorageError: if it has others.
    """
    if not updates:
        return
    names, sizes = zip(*(_outline(one) for one in (updates[0], chosen)), strict=True)
    require(names[1] == names[0], place, "what is chosen", " ".join(names[0]), names[1])
    wanted = f"{sizes[0]} numbers, as before"
    require(sizes[1] == sizes[0], place, "`pool.weights`", wanted, sizes[1])


def _outline(chosen: Chosen) -> tuple[tuple[str, ...], int]:
    """Return the parts of a record and the number of sets in its pool."""
    return chosen.parts, len(chosen.pool.weights) if chosen.pool else 0


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number that is not negative."""
    return type(value) is int and value >= 0


def chosen_as_json(chosen: Chosen) -> dict[str, Any]:
    """Return what was chosen as JSON can hold it.

    Args:
        chosen: what was chosen.
    """
    found: dict[str, Any] = {"first_step": chosen.first_step, "last_step": chosen.last_step}
    if chosen.temperature is not None:
        found["temperature"] = chosen.temperature
    for name, one in chosen.selected.items():
        found[name] = {"counts": list(one.counts), "entropy": one.entropy}
    if chosen.pool:
        pool = chosen.pool
        classes = {"by_class": pool.by_class, "stds_by_class": pool.stds_by_class}
        found["pool"] = {
            "weights": list(pool.weights),
            **({"stds": list(pool.stds)} if pool.stds else {}),
            **{k: {label: list(v) for label, v in of.items()} for k, of in classes.items() if of},
        }
    return found


def _gap(line: Weights, mean: Weights) -> float:
    """Return how far weights are from the mean; a number that is not finite counts as none."""
    return sum(abs((a or 0.0) - (b or 0.0)) for a, b in zip(line, mean, strict=True))
