"""A paired permutation test: could the sign of each difference as well have been the other?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softprompts.lab.analysis.samples import NUM_RESAMPLES, Samples, samples

EXACT_UP_TO = 14


@dataclass(frozen=True)
class SignFlipTest:
    """What a sign-flip test found.

    Attributes:
        p: probability of so large a mean difference, either way, if neither variant is better.
        smallest_p: the least `p` that so many pairs can give.
        num_pairs: pairs over all tasks.
        is_exact: whether all arrangements of signs were gone through; else some were drawn.
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
    is_exact = num_pairs <= exact_up_to
    if is_exact:
        ups = all_arrangements(num_pairs)
    else:
        ups = generator.integers(2, size=(num_resamples, num_pairs))
    seen = abs(weighted.sum())
    as_large = np.abs((2 * ups - 1) @ weighted) >= seen - 1e-12 * np.abs(weighted).sum()
    least = smallest_p(num_pairs)
    if is_exact:
        return SignFlipTest(float(as_large.mean()), least, num_pairs, True)
    p = (1 + int(as_large.sum())) / (1 + num_resamples)
    return SignFlipTest(p, max(least, 1 / (1 + num_resamples)), num_pairs, False)


def all_arrangements(num_pairs: int) -> NDArray[np.int64]:
    """Return every arrangement with the last sign down; the others mirror them.

    Shape `(runs, seeds)`, a line per arrangement: 1 is up, 0 down.
    """
    codes = np.arange(2 ** (num_pairs - 1))[:, None]
    return (codes >> np.arange(num_pairs)) & 1
