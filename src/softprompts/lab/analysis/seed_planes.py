"""The loss over the plane through three trained seeds of a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from softprompts.errors import DataError, PromptError
from softprompts.lab.analysis.blends import blended_loss
from softprompts.lab.analysis.planes import is_pair
from softprompts.lab.analysis.subjects import Subject
from softprompts.lab.analysis.surfaces import outer_rows

_MARGIN = 0.25
"""How far the plane reaches beyond the runs, as a share of their extent."""

_FLAT = 1e-6
"""Runs that lie closer to one line than this share of its length span no plane."""


def are_seeds(subjects: Sequence[Subject]) -> bool:
    """Return whether three runs can span a plane: seeds of one method with rows, on one task."""
    first = subjects[0]
    alike = all(is_pair(first, other) for other in subjects[1:])
    num_seeds = len({subject.about["seed"] for subject in subjects})
    return num_seeds == len(subjects) == 3 and alike and first.track.prompt.length > 0


def plane_through(subjects: Sequence[Subject], num_points: int) -> dict[str, Any]:
    """Return the loss over the plane through three trained runs, on the rows of the first.

    With `A`, `B`, `C` the rows that the backbone reads of the runs: the origin is `A`, the first
    axis `u = B - A`, the second `v = (C - A) - a u`, `a = <C - A, u> / <u, u>`, scaled to the
    length of `u`. So 1 is the distance from `A` to `B`, `C` lies at `(a, |v| / |u|)`, and distances
    in the plane are those between rows. The point at `(x, y)` is the mixture `A + w_B (B - A) +
    w_C (C - A)` with `w_C = y |u| / |v|` and `w_B = x - a w_C`. Selectors and heads are mixed by
    the same weights, so that each run is met where it is marked.

    Args:
        subjects: three seeds of one method on one task and one backbone.
        num_points: points along each side, at least 2.

    Returns:
        `x_axis`, `y_axis`, `losses` with a list per second coordinate, `marks` (places of the
        runs), `mark_losses` (the loss there) and `distance` (from `A` to `B`, as a share of the
        length of `A`).

    Raises:
        DataError: if the runs are not such, or lie on one line.
        PromptError: if they have no rows.

    Reference:
        Garipov et al. (2018), arXiv 1802.10026, section 3, figure 1: the plane through three
        trained networks.

    Differences:
        Axes are orthogonal in the prompt's rows alone; the head goes along.
    """
    _check(subjects)
    a, height, distance = _places([_rows(subject) for subject in subjects])
    marks = [(0.0, 0.0), (1.0, 0.0), (a, height)]

    def loss(x: float, y: float) -> float:
        third = y / height
        second = x - a * third
        return blended_loss(subjects, (1 - second - third, second, third))

    x_axis = _axis([x for x, _ in marks], num_points)
    y_axis = _axis([y for _, y in marks], num_points)
    return {
        "x_axis": x_axis,
        "y_axis": y_axis,
        "losses": [[loss(x, y) for x in x_axis] for y in y_axis],
        "marks": [list(mark) for mark in marks],
        "mark_losses": [loss(*mark) for mark in marks],
        "distance": distance,
    }


def _check(subjects: Sequence[Subject]) -> None:
    if len(subjects) != 3:
        raise DataError(f"a plane must go through 3 runs, but is given {len(subjects)}.")
    first = subjects[0]
    for other in subjects[1:]:
        if not is_pair(first, other):
            named = [
                f"{one.about['folder']} ({one.about['method']} on {one.about['task']})"
                for one in (first, other)
            ]
            raise DataError(
                "a plane must go through seeds of one method on one task and one backbone, but "
                f"goes through {named[0]} and {named[1]}."
            )
    if not first.track.prompt.length:
        raise PromptError(
            "runs must have prompt rows to span a plane, but the prompt of method "
            f"{first.about['method']} has length 0."
        )


def _rows(subject: Subject) -> Tensor:
    """Return all rows that the backbone reads of a run, in one line, float64."""
    sets = [rows(None).detach() for rows in outer_rows(subject.track.prompt.pool)]
    return torch.cat([one.flatten() for one in sets]).double().cpu()


def _places(rows: Sequence[Tensor]) -> tuple[float, float, float | None]:
    """Return the third run's place, and how far the second lies from the first."""
    along, across = rows[1] - rows[0], rows[2] - rows[0]
    length = float(along.norm())
    share = float(along @ across) / length**2 if length else 0.0
    rest = float((across - share * along).norm())
    if length == 0 or rest <= _FLAT * length:
        raise DataError(
            "runs must not lie on one line to span a plane, but the third lies "
            f"{rest:.3g} beside that through the first two, which are {length:.3g} apart."
        )
    norm = float(rows[0].norm())
    return share, rest / length, length / norm if norm else None


def _axis(marks: Sequence[float], num_points: int) -> list[float]:
    """Return evenly spaced coordinates that reach beyond the marks on both sides."""
    low, high = min(marks), max(marks)
    margin = _MARGIN * (high - low)
    step = (high - low + 2 * margin) / (num_points - 1)
    return [low - margin + step * place for place in range(num_points)]
