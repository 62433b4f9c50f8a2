"""What scored rows and seeds leave open: what other rows would add, and what could be shown.

Other rows of the same kind would score otherwise. Letters: `p` a score read as the share of items
that are right, `m` items.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import optimize, special, stats

from softprompts.errors import DataError
from softprompts.lab.analysis.statistics import LEVEL, Floats, check_level

POWER = 0.8
_KNOWN_DF = 1e4
_NUM_NODES = 200
_leggauss = cache(np.polynomial.legendre.leggauss)


def item_variance(score: float, num_items: int) -> float:
    """Return the variance `p (1 − p) / m` of a share of right items.

    For a mean over seeds it is an upper bound, reached where all seeds are right on the same items.

    Raises:
        DataError: if the score is no share or there are no items.
    """
    if not 0 <= score <= 1:
        raise DataError(f"score must be in [0, 1] to be read as a share, but is {score}.")
    if num_items < 1:
        raise DataError(f"num_items must be at least 1, but is {num_items}.")
    return score * (1 - score) / num_items


def crossed_variances(gaps: Floats) -> tuple[float, float]:
    """Return what items add to the variance of a mean difference, and how much of it seeds have.

    `V(d_i) / m` and `v / (n m)`: `d_i` are means over the `n` seeds, `V` their variance over the
    `m` items, `v` that of what is left of a difference without the means of its seed and its item.
    Items on which both variants are alike add nothing, where `item_variance` takes each by itself.

    Args:
        gaps: one variant's answers minus the other's. Shape `(seeds, items)`, at least 2 of each.

    Reference:
        Searle, Casella and McCulloch 1992, Variance Components, on two-way crossed designs.
    """
    num_seeds, num_items = gaps.shape
    means = gaps.mean(axis=0)
    left = gaps - means - gaps.mean(axis=1, keepdims=True) + gaps.mean()
    own = (left**2).sum() / ((num_seeds - 1) * (num_items - 1)) / (num_seeds * num_items)
    return float(means.var(ddof=1) / num_items), float(own)


def detectable_difference(
    standard_error: float, df: float, *, power: float = POWER, level: float = LEVEL
) -> float:
    """Return the true difference that a t-test would have found with probability `power`.

    The `δ` with `P(|t'| > t) = power`, where `t` is the quantile at `level` and `t'` has the
    noncentral t-distribution with `df` degrees of freedom and noncentrality `δ / se`.

    Args:
        standard_error: `se`, of the mean difference; `δ` is in its units.
        df: its degrees of freedom; infinite where it is known.
        power: how probably the difference should be found.
        level: one minus the rate of false finds.

    Raises:
        DataError: if an argument is out of its range.

    Reference:
        Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, chapter 2.
    """
    if not 0 <= standard_error < math.inf:
        raise DataError(f"standard error must be finite and at least 0, but is {standard_error}.")
    if not df > 0:
        raise DataError(f"df must be above 0, but is {df}.")
    check_level(power, "power")
    check_level(level)
    return standard_error * _noncentrality(df, power, level)


def _noncentrality(df: float, power: float, level: float) -> float:
    """Return `δ / se`."""
    if df > _KNOWN_DF:
        return float(special.ndtri((1 + level) / 2) + special.ndtri(power))
    # with s² ~ χ²(df) / df, the power is the mean over s of Φ(λ − t s) + Φ(−λ − t s), summed at the
    # nodes of Gauss and Legendre over the quantiles of s: scipy's noncentral t gives NaN far out
    nodes, weights = _leggauss(_NUM_NODES)
    scale = np.sqrt(stats.chi2.ppf((nodes + 1) / 2, df) / df)
    limits = float(stats.t.ppf((1 + level) / 2, df)) * scale

    def lack(shift: float) -> float:
        found = special.ndtr(shift - limits) + special.ndtr(-shift - limits)
        return float(found @ weights / 2) - power

    if lack(0.0) >= 0:
        return 0.0
    high = 1.0
    while lack(high) < 0:
        high *= 2
    return float(optimize.brentq(lack, 0.0, high, xtol=1e-6))
