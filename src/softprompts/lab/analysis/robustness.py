"""How a score changes with one swept field: a curve over numbers, levels over names.

A study's grid sweeps a field where it gives it several values; `task.name` alone sweeps nothing.
A field whose values are three or more numbers gives a curve for each variant, task and point of
the other fields. Any other gives levels. Both come twice: on the rows that scores are reported
on, and on those held out from training rows, by which a value may be chosen.

A value lies *off the plateau* if a run diverged there: a mean over the runs that survived is not
the mean that a user gets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softprompts.lab.analysis.study_statistics import without_task
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
    """What a field is where a recipe leaves it out, and whether the run that was asked has it."""

    value: Any
    is_own: bool


Defaults = Callable[[Line, str], Default]
"""From a line of `summary.json` and a dotted field to the field's default there."""


def robustness_of(lines: Sequence[Line], defaults: Defaults) -> dict[str, Any]:
    """Return every curve and every set of levels of a study as plain values.

    Returns:
        `curves` per swept numeric field, variant, task, other grid point and kind of rows, and
        `levels` of other fields, in the grid's order, each on reported rows before held-out ones;
        the latter only where runs have scores on such rows. Each says `field`, `task`, `variant`,
        `point` (the other fields of the grid, without the task's name) and `rows`; `values`,
        rising, or `names` in the recipe's order, and at each `means` over seeds, `lows` and `highs`
        of their 95 % intervals, `counts` of scores and how many runs `diverged`. A curve has
        `is_logarithmic`; `best_value`, the lowest of equals; `plateau`, its ends, and
        `plateau_width`, in decades or in the field's unit; `default_value`, `score_at_default` and
        `is_default_on_plateau`. Levels have `best_name`, the first of equals, `near_best`, those
        within one point of the best, `default_name` and `score_at_default`. What is not known is
        `None`.
    """
    found: dict[str, Any] = {"curves": [], "levels": []}
    for field, values in _swept(lines).items():
        are_numbers = len(values) >= _LEAST_NUMBERS and all(map(_is_number, values))
        for group in _groups(lines, field):
            has_held_out = any(line["held_out"]["scores"] for line in group)
            for rows in (REPORTED, HELD_OUT) if has_held_out else (REPORTED,):
                if are_numbers:
                    found["curves"].append(_curve(field, group, rows, defaults(group[0], field)))
                else:
                    own = [defaults(line, field) for line in group]
                    found["levels"].append(_levels(field, group, rows, own))
    return found


def plateau(
    means: Sequence[float | None], is_usable: Sequence[bool]
) -> tuple[int, int, int] | None:
    """Return where means are highest, and the stretch around it that is nearly as high.

    Args:
        means: one per value, in the values' order; `None` where there is none.
        is_usable: whether each may count; those that may not end the stretch.

    Returns:
        Places of the best mean (the first of equals), and of the first and last of the stretch;
        `None` where no mean counts.
    """
    usable = [m if m is not None and ok else None for m, ok in zip(means, is_usable, strict=True)]
    known = [mean for mean in usable if mean is not None]
    if not known:
        return None
    best = usable.index(max(known))
    is_near = [m is not None and m >= max(known) - POINT - _ROUNDING for m in usable]
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


def _curve(field: str, group: Sequence[Line], rows: str, default: Default) -> dict[str, Any]:
    group = sorted(group, key=lambda line: line["point"][field])
    values = tuple(line["point"][field] for line in group)
    scores = _scores(field, group, rows, {"values": values})
    found = plateau(scores["means"], [not count for count in scores["diverged"]])
    is_log = is_logarithmic(values)
    number = default.value if _is_number(default.value) else None
    ends = width = is_within = None
    if found is not None:
        low, high = ends = (values[found[1]], values[found[2]])
        width = math.log10(high / low) if is_log else high - low
        is_within = None if number is None else low <= number <= high
    return {
        **scores,
        "is_logarithmic": is_log,
        "best_value": None if found is None else values[found[0]],
        "plateau": ends,
        "plateau_width": width,
        "default_value": number,
        "score_at_default": scores["means"][values.index(number)] if number in values else None,
        "is_default_on_plateau": is_within,
    }


def _levels(
    field: str, group: Sequence[Line], rows: str, defaults: Sequence[Default]
) -> dict[str, Any]:
    names = tuple(_name(line["point"][field]) for line in group)
    scores = _scores(field, group, rows, {"names": names})
    means, is_usable = scores["means"], [not count for count in scores["diverged"]]
    found = plateau(means, is_usable)
    near: tuple[str, ...] = ()
    if found is not None:
        least = means[found[0]] - POINT - _ROUNDING
        lines = zip(names, means, is_usable, strict=True)
        near = tuple(name for name, mean, ok in lines if ok and mean is not None and mean >= least)
    own = [place for place, default in enumerate(defaults) if default.is_own]
    return {
        **scores,
        "best_name": None if found is None else names[found[0]],
        "near_best": near,
        "default_name": names[own[0]] if own else _kind(defaults[0].value),
        "score_at_default": means[own[0]] if own else None,
    }


def _scores(
    field: str, group: Sequence[Line], rows: str, places: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what curves and levels say alike."""
    spreads = [line if rows == REPORTED else line["held_out"] for line in group]
    ends = [one["interval"] or (None, None) for one in spreads]
    point = without_task(group[0]["point"])
    return {
        "field": field,
        "task": group[0]["task"],
        "variant": group[0]["variant"],
        "point": {name: value for name, value in point.items() if name != field},
        "rows": rows,
        **places,
        "means": tuple(one["mean"] for one in spreads),
        "lows": tuple(low for low, _ in ends),
        "highs": tuple(high for _, high in ends),
        "counts": tuple(len(one["scores"]) for one in spreads),
        "diverged": tuple(line["num_diverged"] for line in group),
    }


def _swept(lines: Sequence[Line]) -> dict[str, list[Any]]:
    """Return the different values of every field that has several, by field."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        for field, value in without_task(line["point"]).items():
            found.setdefault(field, {}).setdefault(repr(value), value)
    return {field: list(values.values()) for field, values in found.items() if len(values) > 1}


def _groups(lines: Sequence[Line], field: str) -> Collection[list[Line]]:
    """Return the lines that differ in `field` alone, together."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        if field in line["point"]:
            rest = {name: value for name, value in line["point"].items() if name != field}
            groups.setdefault(repr((line["variant"], line["task"], rest)), []).append(line)
    return groups.values()


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
