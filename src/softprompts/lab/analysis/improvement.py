"""How often a run of one variant beats a run of another.

Letters: `θ_t = P(X > Y) + P(X = Y) / 2` on task `t`, over all pairs of runs; `θ` their mean over
tasks. Both functions take two variants' scores per task, of the same seeds, and raise `DataError`
where those do not fit together or are not finite.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, stats

from softprompts.lab.analysis.statistics import (
    LEVEL,
    Floats,
    Interval,
    Samples,
    paired_samples,
)

_SHORT = 1e-9


def probability_of_improvement(first: Samples, second: Samples) -> float:
    """Return `θ`, the share of pairs of runs that the first variant wins, a tie counting half.

    Reference:
        Agarwal et al. 2021, arXiv 2108.13264, section 4.3.

    Example:
        >>> probability_of_improvement([[0.7, 0.9]], [[0.8, 0.6]])
        0.75
    """
    one, other = paired_samples(first, second)
    return float(np.mean([_share(x, y) for x, y in zip(one, other, strict=True)]))


def improvement_interval(first: Samples, second: Samples) -> Interval:
    """Return a 95 % interval of `probability_of_improvement`, in [0, 1].

    Per task, the `θ_t` that `|θ_t − seen| ≤ z √V(θ_t)` allows, with
    `V(θ) = θ(1−θ) (1 + (n−1) ((1−θ)/(2−θ) + θ/(1+θ))) / n²`: it has width even where one variant
    wins every pair. Over tasks, the distances from `θ_t` to each end are added in squares.

    Reference:
        Newcombe 2006, Confidence intervals for an effect size measure based on the Mann–Whitney
        statistic, part 2, method 5; Zou and Donner 2008, for the sum over tasks.
    """
    one, other = paired_samples(first, second)
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    shares = np.array([_share(x, y) for x, y in zip(one, other, strict=True)])
    ends = np.array([_ends(share, len(x), z) for share, x in zip(shares, one, strict=True)])
    below, above = np.sqrt(((ends - shares[:, None]) ** 2).sum(axis=0)) / len(shares)
    return float(max(0.0, shares.mean() - below)), float(min(1.0, shares.mean() + above))


def _share(x: Floats, y: Floats) -> float:
    return float((np.sign(x[:, None] - y[None, :]).mean() + 1) / 2)


def _ends(share: float, size: int, z: float) -> Interval:
    """Solve `share = θ ± z √V(θ)` for `θ`."""

    def excess(theta: float, side: int) -> float:
        parts = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) * (1 + (size - 1) * parts) / size**2
        return theta + side * z * math.sqrt(variance) - share

    # θ = share = 1 is a solution, but not the lowest: the search for that stops short of it
    low, high = 0.0, 1.0
    if share > 0:
        low = float(optimize.brentq(excess, 0.0, min(share, 1 - _SHORT), args=(1,)))
    if share < 1:
        high = float(optimize.brentq(excess, max(share, _SHORT), 1.0, args=(-1,)))
    return low, high
