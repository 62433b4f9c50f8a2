"""A paired test that is made again and again while seeds are added, at one rate over all looks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from softprompts.lab.analysis.permutations import EXACT_UP_TO, all_arrangements, smallest_p
from softprompts.lab.analysis.samples import Floats

Differences = Sequence[Mapping[int, float]]
"""One variant's score minus another's: per task, by seed."""


@dataclass(frozen=True)
class Looks:
    """When a study is looked at while seeds are added.

    Attributes:
        seeds: the seeds, in the order in which they were added.
        after: after how many of them it was looked at, rising.
        most: how many there may be.
    """

    seeds: tuple[int, ...]
    after: tuple[int, ...]
    most: int

    @staticmethod
    def single(seeds: Collection[int]) -> Looks:
        """Return one look after all seeds: of a study whose size was fixed before."""
        return Looks(tuple(seeds), (len(seeds),), len(seeds))


def corrected_p(differences: Differences, looks: Looks, generator: np.random.Generator) -> float:
    """Return the least rate at which a mean difference was shown at one of the looks, or 1.

    After `n` of `N` seeds, a share `n / N` of the rate may be spent. Had all pairs had other signs,
    each way as likely as it is where variants are alike, `|Σ_t Σ_s d_ts / (T n_t)|` would have gone
    other ways from look to look. A way is over the bound at a look where it is among the farthest
    there of those that were not over it before, as many as the share still allows. So at most the
    rate of all ways are ever over it, however many looks there are, and wherever one stops. With
    one look after all seeds it is the `p` of the sign-flip test.

    Args:
        differences: per task, by seed; tasks and seeds are taken as in `sign_flip_test`.
        looks: when one looked.
        generator: draws signs where there are more pairs than `EXACT_UP_TO`; the same at each look.

    Reference:
        Lan and DeMets 1983, Discrete sequential boundaries for clinical trials; Kim and DeMets 1987
        for a share that grows as the sample does.

    Differences:
        Bounds are those of sign flips, not of normal scores.
    """
    ways, shares = ways_at(differences, looks, generator)
    low, high = 0, len(ways) * 64
    while high - low > 1:
        middle = (low + high) // 2
        is_over = is_ever_over(ways, shares, middle / (len(ways) * 64))
        low, high = (low, middle) if is_over else (middle, high)
    return high / (len(ways) * 64)


def least_p(differences: Differences, looks: Looks) -> float:
    """Return a bound that `corrected_p` cannot be below, with so many pairs at the looks."""
    found = [1.0]
    for after in looks.after:
        seen = set(looks.seeds[:after])
        num_pairs = sum(len(seen & own.keys()) for own in differences)
        found.append(min(1.0, smallest_p(max(1, num_pairs)) * looks.most / after))
    return min(found)


def ways_at(
    differences: Differences,
    looks: Looks,
    generator: np.random.Generator,
    num_exact: int = EXACT_UP_TO,
) -> tuple[Floats, list[float]]:
    """Return how far each arrangement of signs goes at each look, and the share spent by then.

    Arrangements are as many, and begin alike, whatever looks come later: bounds stay. Of the first
    `num_exact` pairs all signs are gone through, the others' are drawn.

    Returns:
        Shape `(runs, seeds)`, a line per arrangement, the seen one first, and a column per look at
        which every task has a pair; the shares.
    """
    pairs = [
        (task, seed) for seed in looks.seeds for task, own in enumerate(differences) if seed in own
    ]
    columns, shares = [], []
    for after in looks.after:
        seen = set(looks.seeds[:after])
        counts = [len(seen & own.keys()) for own in differences]
        if all(counts):
            shares.append(after / looks.most)
            columns.append([(seed in seen) / counts[t] / len(counts) for t, seed in pairs])
    values = np.array([differences[task][seed] for task, seed in pairs])
    exact = all_arrangements(min(len(pairs), num_exact))
    drawn = generator.integers(2, size=(len(pairs) - exact.shape[1], len(exact))).T
    drawn[:1] = 0
    signs = 2 * np.hstack([exact, drawn]) - 1
    weighted = values[:, None] * np.array(columns).reshape(-1, len(values)).T
    scale = np.abs(weighted).sum(axis=0)
    return np.round(np.abs(signs @ weighted) / np.where(scale > 0, scale, 1), 12), shares


def is_ever_over(ways: Floats, shares: Sequence[float], rate: float) -> bool:
    """Return whether the first way is over the bound at some look."""
    is_over = np.zeros(len(ways), dtype=bool)
    for far, share in zip(ways.T, shares, strict=True):
        allowed = int(rate * share * len(ways) + 1e-9)
        if allowed >= len(ways):
            return True
        left = np.where(is_over, np.inf, far)
        is_over |= left > np.partition(left, -allowed - 1)[-allowed - 1]
        if is_over[0]:
            return True
    return False
