"""Which variant of a study scores highest, whether it is shown to, and which is steadier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np

from softprompts.lab.analysis.permutations import Looks, corrected_p
from softprompts.lab.analysis.spreads import brown_forsythe
from softprompts.lab.analysis.statistics import is_constant, standard_error, stratified_mean
from softprompts.lab.analysis.study_statistics import variant_words
from softprompts.recipes.study_size import RATE
from softprompts.seeding import derive

Lines: TypeAlias = Sequence[Mapping[str, Any]]
"""What a summary says of one variant at one point, a line per task."""

_LEAST_SEEDS = 3
"""Of fewer, a spread says nothing."""


@dataclass(frozen=True)
class Beside:
    """The leader of a study beside another variant.

    Attributes:
        other: what the other is called.
        num_others: how many variants there are beside the leader.
        p: of the sign-flip test; `None` where they share no seed on some task.
        z: the mean difference by its standard error; 0 where that is not known.
        num_pairs: pairs of runs.
        num_seeds: the fewest seeds that both have on a task.
    """

    other: str
    num_others: int
    p: float | None
    z: float = 0.0
    num_pairs: int = 0
    num_seeds: int = 0

    @property
    def whom(self) -> str:
        """Whom the leader has beaten, where it has beaten this one."""
        return self.other if self.num_others == 1 else f"all {self.num_others} others"


@dataclass(frozen=True)
class Steadier:
    """A variant that is level with the leader within error, and spreads less over seeds.

    `p` is that of the test of spreads, times the number of others; `None` where it is not shown to
    spread less.
    """

    name: str
    mean: float
    spread: float
    p: float | None


def ranked(cells: Lines) -> list[Lines]:
    """Return variants at points of the grid, the highest mean over tasks first.

    Of means that look equal, the one that spreads least comes first. A variant is left out where a
    run has no score, or a task that others have is lacking.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for line in cells:
        groups.setdefault(name_of(line), []).append(line)
    most = max(map(len, groups.values()), default=0)
    whole = [
        own
        for own in groups.values()
        if len(own) == most and all(line["scores"] and not line["missing"] for line in own)
    ]
    return sorted(whole, key=lambda own: (-round(mean_of(own), 3), spread_of(own)))


def closest(order: Sequence[Lines], looks: Looks | None = None) -> Beside | None:
    """Return the leader beside the other that it is hardest to tell from.

    It is shown to lead where it is shown to beat each other one. That is not corrected for how many
    there are: the leader has to beat all of them, so the more there are, the less often chance
    makes one that does.

    Args:
        order: as `ranked` returns them; the first is the leader.
        looks: when the study was looked at; once when `None`.

    Returns:
        That with the largest `p`; `None` with fewer than two variants.

    Reference:
        Gutmann and Maymin 1987, Is the selected population the best?; Hung and Fithian 2019, Rank
        verification for exponential families. Both for independent scores; what is simulated is in
        `docs/statistics.md`.
    """
    found = [_beside(order[0], other, len(order) - 1, looks) for other in order[1:]]
    return max(found, key=lambda one: math.inf if one.p is None else one.p, default=None)


def _beside(best: Lines, other: Lines, num_others: int, looks: Looks | None) -> Beside:
    name = name_of(other[0])
    pairs = [pair for pair in _pairs(best, other) if pair[1]]
    gaps = [{seed: a[seed] - b[seed] for seed in a if seed in b} for a, b in pairs]
    if not gaps or not all(gaps):
        return Beside(name, num_others, None)
    looks = looks or Looks.single({seed for own in gaps for seed in own})
    p = corrected_p(gaps, looks, np.random.default_rng(derive(0, "sign-flips", "advice")))
    values = [np.array(list(own.values())) for own in gaps]
    counts = [len(own) for own in values]
    is_known = min(counts) > 1 and not all(map(is_constant, values))
    z = stratified_mean(values) / standard_error(values)[0] if is_known else 0.0
    return Beside(name, num_others, p, z, sum(counts), min(counts))


def steadier(
    order: Sequence[Lines], interval: Sequence[float] | None, looks: Looks | None = None
) -> Steadier | None:
    """Return the highest variant beside the leader that is level with it, and steadier.

    Level: the leader is not shown to beat it, and its mean lies in the leader's interval. Steadier:
    shown to spread less, or with at most half of the leader's spread, of three seeds or more.

    Args:
        order: see `closest`.
        interval: of the leader's mean.
        looks: see `closest`.
    """
    if interval is None:
        return None
    best, num_others = order[0], len(order) - 1
    for other in order[1:]:
        spread, p = spread_of(other), _spread_p(best, other)
        is_shown = p is not None and num_others * p <= RATE and spread < spread_of(best)
        is_calm = p is not None and spread <= spread_of(best) / 2
        if not (is_shown or is_calm) or not interval[0] <= mean_of(other) <= interval[1]:
            continue
        beaten = _beside(best, other, num_others, looks).p
        if beaten is None or beaten > RATE:
            shown_p = num_others * p if is_shown and p is not None else None
            return Steadier(name_of(other[0]), mean_of(other), spread, shown_p)
    return None


def _spread_p(one: Lines, other: Lines) -> float | None:
    """Return `p` of the test of two spreads; 1 where it cannot tell, `None` of too few seeds."""
    pairs = _pairs(one, other)
    shared = [[(a[seed], b[seed]) for seed in a if seed in b] for a, b in pairs]
    if min(len(own) for pair in pairs for own in pair) < _LEAST_SEEDS:
        return None
    if min(map(len, shared)) < _LEAST_SEEDS:
        return 1.0
    firsts, seconds = ([[pair[k] for pair in task] for task in shared] for k in (0, 1))
    found = brown_forsythe(firsts, seconds)
    return 1.0 if found is None else found


def _pairs(one: Lines, other: Lines) -> list[tuple[dict[int, float], dict[int, float]]]:
    """Return both variants' scores by seed for each task of the first; empty where one lacks it."""
    mine, theirs = (
        {line["task"]: dict(zip(line["seeds"], line["scores"], strict=True)) for line in lines}
        for lines in (one, other)
    )
    return [(scores, theirs.get(task, {})) for task, scores in mine.items()]


def mean_of(own: Lines, key: str = "mean") -> float:
    """Return the mean over tasks of a number of each line."""
    return fmean(line[key] for line in own)


def spread_of(own: Lines) -> float:
    """Return the standard deviation over seeds, of several tasks the root of its mean square."""
    return math.sqrt(fmean((line["std"] or 0.0) ** 2 for line in own))


def name_of(line: Mapping[str, Any]) -> str:
    """Return what a variant at a point of the grid is called, whatever its task."""
    point = {key: value for key, value in line["point"].items() if key != "task"}
    return variant_words({**line, "point": point})
