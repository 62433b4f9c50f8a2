"""Paired permutation tests: could the sign of each difference as well have been the other?

One is made once; the other again and again while seeds are added, at one rate over all looks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softprompts.lab.analysis.statistics import NUM_RESAMPLES, Floats, Samples, samples

EXACT_UP_TO = 14

Differences = Sequence[Mapping[int, float]]
"""One variant's score minus another's: per task, by seed."""


@dataclass(frozen=True)
class SignFlipTest:
    """What a sign-flip test found; exact where all arrangements of signs were gone through.

    `p` is the probability of so large a mean difference, either way, if neither variant is better,
    `smallest_p` the least that so many pairs over all tasks can give.
    """

    p: float
    smallest_p: float
    num_pairs: int
    is_exact: bool


def smallest_p(num_pairs: int) -> float:
    """Return the least two-sided `p` of a sign-flip test: `2 / 2^n`.

    Example:
        >>> smallest_p(5)
        0.0625
    """
    return min(1.0, 2.0 ** (1 - num_pairs))


def sign_flip_test(
    differences: Samples,
    generator: np.random.Generator,
    *,
    exact_up_to: int = EXACT_UP_TO,
    num_resamples: int = NUM_RESAMPLES,
) -> SignFlipTest:
    """Test whether the mean difference over seeds, averaged over tasks, is zero.

    If two variants are alike, the difference of each pair of runs is as likely to be `d` as `−d`.
    The test compares `|Σ_t Σ_s d_ts / (T n_t)|` with its values under all flips of signs. Flips are
    independent, so runs of different tasks must be, too.

    Args:
        differences: per task, one per seed.
        generator: draws the flips where there are more than `exact_up_to` pairs.
        exact_up_to: up to how many pairs to go through all flips.
        num_resamples: how many flips to draw else. The flip that was seen counts as one more.

    Raises:
        DataError: if a difference is not finite, or a task has none.

    Reference:
        Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010,
        arXiv 1603.05766, for the flip that is counted.
    """
    values = samples(differences, "differences")
    weighted = np.concatenate([x / (len(x) * len(values)) for x in values])
    num_pairs = len(weighted)
    least, seen = smallest_p(num_pairs), abs(weighted.sum()) - 1e-12 * np.abs(weighted).sum()
    if num_pairs <= exact_up_to:
        p = float((np.abs((2 * all_arrangements(num_pairs) - 1) @ weighted) >= seen).mean())
        return SignFlipTest(p, least, num_pairs, True)
    ups = generator.integers(2, size=(num_resamples, num_pairs))
    num_as_large = int((np.abs((2 * ups - 1) @ weighted) >= seen).sum())
    p, least = (1 + num_as_large) / (1 + num_resamples), max(least, 1 / (1 + num_resamples))
    return SignFlipTest(p, least, num_pairs, False)


def all_arrangements(num_pairs: int) -> NDArray[np.int64]:
    """Return every arrangement with the last sign down; the others mirror them.

    Shape `(runs, seeds)`, a line per arrangement: 1 is up, 0 down.
    """
    codes = np.arange(2 ** (num_pairs - 1))[:, None]
    return (codes >> np.arange(num_pairs)) & 1


@dataclass(frozen=True)
class Looks:
    """When a study is looked at: after how many of the seeds in their order, of at most so many."""

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
        differences: tasks and seeds are taken as in `sign_flip_test`.
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
