"""Landscapes of several finished runs: on the same axes, and on the plane through three seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompts.errors import DataError, PromptError
from softprompts.lab.analysis.planes import (
    LEAST_PATH_POINTS,
    Grid,
    Told,
    blended_loss,
    is_pair,
    look,
    path_between,
)
from softprompts.lab.analysis.subjects import Sample, Subject, load_subject
from softprompts.lab.analysis.surfaces import PromptSurface
from softprompts.training.resources import Resources


def measure_landscapes(
    folders: Sequence[Path], sample: Sample, grid: Grid, told: Told = lambda text, done, total: None
) -> dict[str, Any]:
    """Look at the loss around finished runs, and between those that follow each other.

    Returns:
        What JSON can hold: `runs`, each with its `spaces`; `paths` between runs that follow each
        other and are two seeds of one method on one task; `seed_planes` through three such runs,
        `runs` their numbers; and `sample` and `grid`. A space that a run does not have is missing,
        with the reason in `left_out`.

    Raises:
        SoftPromptsError: if a run cannot be read.
    """
    resources = Resources()
    subjects = [load_subject(folder, sample, resources) for folder in folders]
    runs = [_look_at(subject, grid, told) for subject in subjects]
    paths = []
    for (number, first), (other, second) in pairwise(enumerate(subjects)):
        if is_pair(first, second):
            text = f"path from {first.about['folder']} to {second.about['folder']}"
            told(text, 0, 1)
            found = path_between(first, second, max(grid.num_line_points, LEAST_PATH_POINTS))
            told(text, 1, 1)
            paths.append({"first": number, "second": other, **found})
    planes = _planes(subjects, grid, told) if "prompt" in grid.spaces else []
    about = {"sample": asdict(sample), "grid": asdict(grid)}
    return {**about, "runs": runs, "paths": paths, "seed_planes": planes}


def _planes(subjects: Sequence[Subject], grid: Grid, told: Told) -> list[dict[str, Any]]:
    """Look at the planes through three seeds that follow each other, each run in one of them."""
    found, number = [], 0
    while number + 3 <= len(subjects):
        three = subjects[number : number + 3]
        if are_seeds(three):
            text = f"plane through {', '.join(one.about['folder'] for one in three)}"
            told(text, 0, 1)
            plane = plane_through(three, grid.num_points)
            told(text, 1, 1)
            found.append({"runs": [number, number + 1, number + 2], **plane})
        number += 3 if are_seeds(three) else 1
    return found


def _look_at(subject: Subject, grid: Grid, told: Told) -> dict[str, Any]:
    about = {name: value for name, value in subject.about.items() if name != "prompt"}
    found: dict[str, Any] = {**about, "num_examples": subject.num_examples}
    found |= {"spaces": {}, "left_out": {}}
    for space in grid.spaces:
        try:
            found["spaces"][space] = look(subject, space, grid, told)
        except PromptError as error:
            found["left_out"][space] = str(error)
    return found


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
    rows = [PromptSurface(subject).rows.flatten().double().cpu() for subject in subjects]
    a, height, distance = _places(rows)
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
            named = " and ".join(
                f"{one['folder']} ({one['method']} on {one['task']})"
                for one in (first.about, other.about)
            )
            raise DataError(
                "a plane must go through seeds of one method on one task and one backbone, but "
                f"goes through {named}."
            )
    if not first.track.prompt.length:
        raise PromptError(
            "runs must have prompt rows to span a plane, but the prompt of method "
            f"{first.about['method']} has length 0."
        )


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
