"""The loss over planes and lines around a trained run, and between two of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from softprompts.errors import DataError
from softprompts.lab.analysis.curvature import block_norms, per_block
from softprompts.lab.analysis.subjects import Subject
from softprompts.lab.analysis.surfaces import (
    GivenRows,
    InputSurface,
    Point,
    PromptSurface,
    Surface,
)
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.rows.base import Rows
from softprompts.readouts.base import Readout
from softprompts.seeding import generator
from softprompts.training.forward import Part, score

SPACES = ("input", "prompt")
DIRECTIONS = ("gradient", "random")
MOST_POINTS = 1001
FINE = {"num_points": 17, "num_line_points": 33}
"""A grid that has every point of the first picture, and points between them."""

LEAST_PATH_POINTS = 9
"""Of a path between two runs, whose barrier is the largest rise that is met."""

Told = Callable[[str, int, int], None]
"""Is told, in words, what is looked at, how many of its points are done, and of how many."""

_POINTS_AT_ONCE = 16
"""Points that are held in memory together."""


@final
@dataclass(frozen=True)
class Grid:
    """Where a landscape is looked at.

    Attributes:
        spaces: `input`, `prompt`, or both.
        directions: what the first direction is: `gradient` or `random`; the second is random and
            orthogonal to it.
        input_radius: how far inputs move to each side, in units of the embedding table.
        prompt_radius: how far rows move to each side, in their own lengths.
        num_points: points along each side of a plane, odd, so that the run itself is one, and at
            most 1001.
        num_line_points: points along each line, odd, and at most 1001; as many as `num_points`
            are those of the plane, which cost nothing more.

    Raises:
        DataError: if a value makes no sense.
    """

    spaces: tuple[str, ...] = SPACES
    directions: str = "gradient"
    input_radius: float = 0.1
    prompt_radius: float = 0.5
    num_points: int = 5
    num_line_points: int = 5

    def __post_init__(self) -> None:
        said = ", ".join(self.spaces) or "empty"
        if not self.spaces or not set(SPACES).issuperset(self.spaces):
            raise DataError(f"`spaces` must be some of {', '.join(SPACES)}, but is {said}.")
        if len(set(self.spaces)) < len(self.spaces):
            raise DataError(f"`spaces` must name each space once, but is {said}.")
        if self.directions not in DIRECTIONS:
            known = ", ".join(DIRECTIONS)
            raise DataError(f"`directions` must be one of {known}, but is {self.directions!r}.")
        for name in ("input_radius", "prompt_radius"):
            if not 0 < getattr(self, name) < float("inf"):
                raise DataError(f"`{name}` must be more than 0, but is {getattr(self, name)}.")
        for name in ("num_points", "num_line_points"):
            count = getattr(self, name)
            if not 3 <= count <= MOST_POINTS or count % 2 == 0:
                raise DataError(
                    f"`{name}` must be odd, at least 3 and at most {MOST_POINTS}, but is {count}."
                )

    def radius(self, space: str) -> float:
        """Return how far a space is looked at."""
        return self.input_radius if space == "input" else self.prompt_radius


def surface_of(subject: Subject, space: str) -> Surface:
    """Return the surface of a space; a `PromptError` for `prompt` without prompt rows."""
    return InputSurface(subject) if space == "input" else PromptSurface(subject)


def directions_of(surface: Surface, kind: str) -> tuple[Point, Point]:
    """Return two directions whose blocks are orthogonal, each block of the length of its span.

    A step of 1 moves each example by a root-mean-square of 1 unit, or each row by its own length.
    The first is random, or uphill for `gradient`; a block that the gradient does not reach has no
    first direction.

    Reference:
        Chen et al. (2023), arXiv 2305.02423, the figure of the loss around inputs: along its
        gradient, and orthogonal to it; Li et al. (2018), arXiv 1712.09913, for the scale.

    Differences:
        Each example, or row, moves as far as the others; how far is not said in the paper.
    """
    uphill = surface.uphill if kind == "gradient" else _drawn(surface, 0)
    first, second = [], []
    for one, drawn, span in zip(uphill, _drawn(surface, 1), surface.spans, strict=True):
        along = one / block_norms(one)
        across = drawn - per_block((drawn * along).flatten(1).sum(dim=1), drawn) * along
        first.append(along * per_block(span, along))
        second.append(across / block_norms(across) * per_block(span, across))
    return tuple(first), tuple(second)


def _drawn(surface: Surface, number: int) -> Point:
    """Draw a direction; of inputs, at their field tokens alone."""
    draws = generator(surface.subject.sample.seed, "landscape", "direction", number)
    if isinstance(surface, InputSurface):
        return surface.noise(draws)
    return tuple(torch.randn(p.shape, generator=draws).to(p) for p in surface.origin)


def slope_along(surface: Surface, direction: Point) -> float:
    """Return the derivative of the mean loss along a direction, at the origin."""
    pairs = zip(surface.uphill, direction, strict=True)
    return sum(float((a.double() * b.double()).sum()) for a, b in pairs)


def axis(radius: float, num_points: int) -> list[float]:
    """Return coordinates from `-radius` to `radius`; the middle one is exactly 0.

    Example:
        >>> axis(0.5, 3)
        [-0.5, 0.0, 0.5]
    """
    half = num_points // 2
    return [radius * (place - half) / half for place in range(num_points)]


def look(
    subject: Subject, space: str, grid: Grid, told: Told = lambda text, done, total: None
) -> dict[str, Any]:
    """Return the loss over a plane and along its two axes.

    A point of the plane and of a line is looked at once.

    Returns:
        `axis`, `losses` with a list per second coordinate, `line_axis`, `lines` along `first` and
        `second`, `slope` along the first direction, `radius`, `directions` and `loss`.

    Raises:
        PromptError: if the run has no prompt rows, for `prompt`.
    """
    surface, text = surface_of(subject, space), f"{space} space of {subject.about['folder']}"
    first, second = directions_of(surface, grid.directions)
    places = axis(grid.radius(space), grid.num_points)
    along = axis(grid.radius(space), grid.num_line_points)
    plane = [[(x, y) for x in places] for y in places]
    lines = {"first": [(x, 0.0) for x in along], "second": [(0.0, y) for y in along]}
    wanted = list(dict.fromkeys(p for line in (*plane, *lines.values()) for p in line))
    known: dict[tuple[float, float], float] = {}
    for start in range(0, len(wanted), _POINTS_AT_ONCE):
        told(text, start, len(wanted))
        some = wanted[start : start + _POINTS_AT_ONCE]
        found = surface.losses([_at(first, second, x, y) for x, y in some]).mean(dim=1)
        known |= zip(some, found.tolist(), strict=True)
    told(text, len(wanted), len(wanted))
    return {
        "space": space,
        "directions": grid.directions,
        "radius": grid.radius(space),
        "loss": known[0.0, 0.0],
        "slope": slope_along(surface, first),
        "axis": places,
        "losses": [[known[point] for point in line] for line in plane],
        "line_axis": along,
        "lines": {name: [known[point] for point in line] for name, line in lines.items()},
    }


def _at(first: Point, second: Point, x: float, y: float) -> Point:
    return tuple(x * a + y * b for a, b in zip(first, second, strict=True))


def path_between(first: Subject, second: Subject, num_points: int) -> dict[str, Any]:
    """Return the loss along the straight line between two trained runs, on the rows of the first.

    What the backbone reads of the prompts, their selectors and the readouts' heads are mixed:
    `(1 - t) first + t second`. The barrier is the largest rise of the loss over the straight line
    between the losses of the ends.

    Returns:
        `shares`, `num_points` of `t` with both ends, `losses` and `barrier`.

    Raises:
        DataError: if the runs are no two seeds of one method on one task.

    Reference:
        Frankle et al. (2020), arXiv 1912.05671, section 2; Entezari et al. (2022), arXiv
        2110.06296, section 2, for the barrier's baseline.
    """
    if not is_pair(first, second):
        one, other = (
            f"{run['folder']} is {run['method']} on {run['task']}, seed {run['seed']}"
            for run in (first.about, second.about)
        )
        raise DataError(
            "a path must lie between two seeds of one method on one task and one backbone, "
            f"but {one} and {other}."
        )
    shares = [place / (num_points - 1) for place in range(num_points)]
    losses = [blended_loss((first, second), (1 - share, share)) for share in shares]
    rises = [
        loss - (1 - share) * losses[0] - share * losses[-1]
        for loss, share in zip(losses, shares, strict=True)
    ]
    return {"shares": shares, "losses": losses, "barrier": float(np.max(rises))}


def is_pair(first: Subject, second: Subject) -> bool:
    """Return whether two runs are seeds of one method on one task, read through one backbone.

    A run that trains its backbone reads through a copy of its own, so it has no pair.
    """
    names = ("method", "task", "readout", "prompt")
    alike = all(first.about.get(name) == second.about.get(name) for name in names)
    return alike and first.backbone is second.backbone


@torch.no_grad()
def blended_loss(subjects: Sequence[Subject], weights: Sequence[float]) -> float:
    """Return the mean loss of a mixture of runs that are pairs, on the rows of the first.

    Weights sum to 1, and may be negative.
    """
    first = subjects[0]
    prompt = _blend([subject.track.prompt for subject in subjects], weights)
    readout = _blend([subject.track.readout for subject in subjects], weights)
    assert isinstance(prompt, Prompt)
    assert isinstance(readout, Readout)
    total = 0.0
    for batch in first.batches:
        scores = score(first.backbone, [Part(prompt, readout, batch)])[0]
        total += float(readout.loss(scores, batch).double().sum())
    return total / first.num_examples


def _blend(modules: Sequence[nn.Module], weights: Sequence[float]) -> nn.Module:
    """Return a module whose tensors are `Σ w_i t_i`; of rows, those that the backbone reads."""
    first = modules[0]
    rows = [module for module in modules if isinstance(module, Rows)]
    if len(rows) == len(modules):
        return GivenRows(_sum([one(None) for one in rows], weights))
    clone = copy.copy(first)
    for kind in ("_parameters", "_buffers"):
        held = [getattr(module, kind) for module in modules]
        setattr(clone, kind, {name: _tensor([h[name] for h in held], weights) for name in held[0]})
    children = [dict(module.named_children()) for module in modules]
    clone._modules = {name: _blend([c[name] for c in children], weights) for name in children[0]}
    return clone


def _tensor(tensors: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    """Return the sum; the first where there is no number to mix."""
    present = [tensor for tensor in tensors if tensor is not None]
    if len(present) < len(tensors) or not present[0].is_floating_point():
        return tensors[0]
    return _sum(present, weights)


def _sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    pairs = zip(tensors, weights, strict=True)
    return torch.stack([weight * tensor for tensor, weight in pairs]).sum(dim=0)
