"""How a score changes with one swept field: a curve over numbers, levels over names.

A study's grid sweeps a field where it gives it several values; `task.name` alone sweeps nothing.
A field whose values are three or more numbers gives a `Curve` for each variant, task and point of
the other fields. Any other gives `Levels`. Both come twice: on the rows that scores are reported
on, and on those held out from training rows, by which a value may be chosen.

A value lies *off the plateau* if a run diverged there: a mean over the runs that survived is not
the mean that a user gets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from softprompts.lab.analysis.reading import without_task
from softprompts.problems import show

POINT = 0.01
"""How far below the best mean the plateau reaches: one point of a score in percent."""

REPORTED, HELD_OUT = "reported", "held-out"

_ROUNDING = 1e-12
_LEAST_NUMBERS = 3
_LEAST_DECADES = 1.5
_SAME_RATIO = 0.01

Line = Mapping[str, Any]
"""One of `cells` of `summary.json`."""


@dataclass(frozen=True)
class Default:
    """What a field is where a recipe leaves it out.

    Attributes:
        value: its value in the resolved run.
        is_own: whether the run that was asked about has just this value.
    """

    value: Any
    is_own: bool


Defaults = Callable[[Line, str], Default]
"""From a line of `summary.json` and a dotted field to the field's default there."""


@dataclass(frozen=True)
class Curve:
    """Scores over the values of one numeric field, for one variant on one task.

    Attributes:
        field: the swept field, dotted.
        task: the task's name.
        variant: the variant's name.
        point: the other fields of the grid, without the task's name.
        rows: `reported` or `held-out`: which rows the scores are of.
        values: the swept values, rising.
        means: mean score over seeds at each; `None` where no run has a score.
        lows: lower ends of the 95 % intervals over seeds by Student's t; `None` where there are
            fewer than two scores.
        highs: upper ends.
        counts: runs with a score at each value.
        diverged: runs that diverged at each value; they have no score.
        is_logarithmic: whether values are positive, and span 1.5 decades or keep one ratio.
        best_value: the value with the highest mean, the lowest of equals; `None` if none counts.
        plateau: ends of the stretch of values around the best whose means lie within one point of
            the best mean, none of them with a diverged run.
        plateau_width: its width: in decades if `is_logarithmic`, else in the field's unit.
        default_value: the field's default for this variant; `None` if it is no number.
        score_at_default: the mean there; `None` where the default was not swept.
        is_default_on_plateau: whether the default lies between the plateau's ends; `None` without
            a default or a plateau.
    """

    field: str
    task: str
    variant: str
    point: dict[str, Any]
    rows: str
    values: tuple[float, ...]
    means: tuple[float | None, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]
    counts: tuple[int, ...]
    diverged: tuple[int, ...]
    is_logarithmic: bool
    best_value: float | None
    plateau: tuple[float, float] | None
    plateau_width: float | None
    default_value: float | None
    score_at_default: float | None
    is_default_on_plateau: bool | None


@dataclass(frozen=True)
class Levels:
    """Scores over the values of one field that has no order, for one variant on one task.

    Attributes:
        field: the swept field, dotted.
        task: the task's name.
        variant: the variant's name.
        point: the other fields of the grid, without the task's name.
        rows: `reported` or `held-out`.
        names: the swept values as text, in the recipe's order.
        means: as those of `Curve`.
        lows: likewise.
        highs: likewise.
        counts: likewise.
        diverged: likewise.
        best_name: the value with the highest mean, the first of equals; `None` if none counts.
        near_best: the values whose means lie within one point of the best mean, the best among
            them, none of them with a diverged run.
        default_name: the field's default for this variant.
        score_at_default: the mean there; `None` where the default was not swept.
    """

    field: str
    task: str
    variant: str
    point: dict[str, Any]
    rows: str
    names: tuple[str, ...]
    means: tuple[float | None, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]
    counts: tuple[int, ...]
    diverged: tuple[int, ...]
    best_name: str | None
    near_best: tuple[str, ...]
    default_name: str
    score_at_default: float | None


def robustness_of(lines: Sequence[Line], defaults: Defaults) -> dict[str, Any]:
    """Return every curve and every set of levels of a study as plain values.

    Args:
        lines: `cells` of `summary.json`.
        defaults: what a field is where a recipe leaves it out.

    Returns:
        `curves` and `levels`; both empty where the study sweeps nothing.
    """
    return {
        "curves": [asdict(curve) for curve in curves(lines, defaults)],
        "levels": [asdict(found) for found in levels(lines, defaults)],
    }


def curves(lines: Sequence[Line], defaults: Defaults) -> tuple[Curve, ...]:
    """Return a curve per swept numeric field, variant, task, other grid point and kind of rows.

    Args:
        lines: `cells` of `summary.json`.
        defaults: what a field is where a recipe leaves it out.

    Returns:
        The curves in the grid's order, each on reported rows before held-out ones; the latter only
        where runs have scores on such rows.
    """
    fields = [field for field, values in _swept(lines).items() if _are_numbers(values)]
    return tuple(
        _curve(field, group, rows, defaults(group[0], field))
        for field in fields
        for group in _groups(lines, field)
        for rows in _kinds_of_rows(group)
    )


def levels(lines: Sequence[Line], defaults: Defaults) -> tuple[Levels, ...]:
    """Return levels per swept field that is no curve, as `curves` does for those that are."""
    fields = [field for field, values in _swept(lines).items() if not _are_numbers(values)]
    return tuple(
        _levels(field, group, rows, [defaults(line, field) for line in group])
        for field in fields
        for group in _groups(lines, field)
        for rows in _kinds_of_rows(group)
    )


def plateau(
    means: Sequence[float | None], is_usable: Sequence[bool], tolerance: float = POINT
) -> tuple[int, int, int] | None:
    """Return where means are highest, and the stretch around it that is nearly as high.

    Args:
        means: one per value, in the values' order; `None` where there is none.
        is_usable: whether each may count; those that may not end the stretch.
        tolerance: how far below the best mean the stretch reaches.

    Returns:
        Places of the best mean (the first of equals), and of the first and last of the stretch;
        `None` where no mean counts.
    """
    usable = [m if m is not None and ok else None for m, ok in zip(means, is_usable, strict=True)]
    known = [mean for mean in usable if mean is not None]
    if not known:
        return None
    best = usable.index(max(known))
    is_near = [m is not None and m >= max(known) - tolerance - _ROUNDING for m in usable]
    low = high = best
    while low > 0 and is_near[low - 1]:
        low -= 1
    while high + 1 < len(usable) and is_near[high + 1]:
        high += 1
    return best, low, high


def is_logarithmic(values: Sequence[float]) -> bool:
    """Return whether numbers are better seen on a logarithmic axis.

    Args:
        values: rising numbers, two or more.

    Returns:
        Whether all are positive, and the last is `10**1.5` times the first or each is the same
        number of times the one before (within 1 %; three numbers or more).
    """
    if values[0] <= 0:
        return False
    if math.log10(values[-1] / values[0]) >= _LEAST_DECADES - _ROUNDING:
        return True
    ratios = [after / before for before, after in itertools.pairwise(values)]
    return len(ratios) > 1 and max(ratios) <= min(ratios) * (1 + _SAME_RATIO)


def _curve(field: str, group: Sequence[Line], rows: str, default: Default) -> Curve:
    group = sorted(group, key=lambda line: line["point"][field])
    values = tuple(line["point"][field] for line in group)
    scores = _scores(group, rows)
    found = plateau(scores["means"], [not count for count in scores["diverged"]])
    ends = None if found is None else (values[found[1]], values[found[2]])
    is_log = is_logarithmic(values)
    width = None
    if ends is not None:
        width = math.log10(ends[1] / ends[0]) if is_log else ends[1] - ends[0]
    number = default.value if _is_number(default.value) else None
    return Curve(
        field=field,
        **_about(field, group[0]),
        rows=rows,
        values=values,
        **scores,
        is_logarithmic=is_log,
        best_value=None if found is None else values[found[0]],
        plateau=ends,
        plateau_width=width,
        default_value=number,
        score_at_default=scores["means"][values.index(number)] if number in values else None,
        is_default_on_plateau=(
            None if ends is None or number is None else ends[0] <= number <= ends[1]
        ),
    )


def _levels(field: str, group: Sequence[Line], rows: str, defaults: Sequence[Default]) -> Levels:
    names = tuple(_name(line["point"][field]) for line in group)
    scores = _scores(group, rows)
    is_usable = [not count for count in scores["diverged"]]
    found = plateau(scores["means"], is_usable)
    near: tuple[str, ...] = ()
    if found is not None:
        least = scores["means"][found[0]] - POINT - _ROUNDING
        near = tuple(
            name
            for name, mean, ok in zip(names, scores["means"], is_usable, strict=True)
            if ok and mean is not None and mean >= least
        )
    own = [place for place, default in enumerate(defaults) if default.is_own]
    return Levels(
        field=field,
        **_about(field, group[0]),
        rows=rows,
        names=names,
        **scores,
        best_name=None if found is None else names[found[0]],
        near_best=near,
        default_name=names[own[0]] if own else _kind(defaults[0].value),
        score_at_default=scores["means"][own[0]] if own else None,
    )


def _scores(group: Sequence[Line], rows: str) -> dict[str, Any]:
    """Return what curves and levels say alike."""
    spreads = [line if rows == REPORTED else line["held_out"] for line in group]
    return {
        "means": tuple(one["mean"] for one in spreads),
        "lows": tuple(None if one["interval"] is None else one["interval"][0] for one in spreads),
        "highs": tuple(None if one["interval"] is None else one["interval"][1] for one in spreads),
        "counts": tuple(len(one["scores"]) for one in spreads),
        "diverged": tuple(line["num_diverged"] for line in group),
    }


def _about(field: str, line: Line) -> dict[str, Any]:
    rest = {name: value for name, value in without_task(line["point"]).items() if name != field}
    return {"task": line["task"], "variant": line["variant"], "point": rest}


def _swept(lines: Sequence[Line]) -> dict[str, list[Any]]:
    """Return the different values of every field that has several, by field."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        for field, value in without_task(line["point"]).items():
            found.setdefault(field, {}).setdefault(repr(value), value)
    return {field: list(values.values()) for field, values in found.items() if len(values) > 1}


def _groups(lines: Sequence[Line], field: str) -> Iterator[list[Line]]:
    """Yield the lines that differ in `field` alone, together."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        if field in line["point"]:
            rest = {name: value for name, value in line["point"].items() if name != field}
            groups.setdefault(repr((line["variant"], line["task"], rest)), []).append(line)
    yield from groups.values()


def _kinds_of_rows(group: Sequence[Line]) -> Iterator[str]:
    yield REPORTED
    if any(line["held_out"]["scores"] for line in group):
        yield HELD_OUT


def _are_numbers(values: Sequence[Any]) -> bool:
    return len(values) >= _LEAST_NUMBERS and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(value: Any) -> str:
    """Return a value as a recipe writes it, shortly: a component's kind, then its options."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and "kind" in value:
        options = [f"{k}={_name(v)}" for k, v in value.items() if k != "kind"]
        return " ".join([value["kind"], *options])
    return show(value)


def _kind(value: Any) -> str:
    return value["kind"] if isinstance(value, Mapping) and "kind" in value else _name(value)
