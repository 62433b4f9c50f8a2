"""What scored rows and seeds leave open: what other rows would add, and what could be shown.

Other rows of the same kind would score otherwise. Letters: `p` a score read as the share of items
that are right, `m` items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import optimize, special, stats

from softprompts.errors import DataError
from softprompts.lab.analysis.statistics import LEVEL, NUM_RESAMPLES, Interval, check_level

POWER = 0.8
_CHUNK = 256
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


def crossed_interval(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    generator: np.random.Generator,
    *,
    over_seeds: bool = True,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return a bootstrap 95 % interval of two variants' difference, from their answers per item.

    Items are drawn again, the same for both variants; with `over_seeds` so are seeds, independently
    of the items. That is wider than it need be, never narrower.

    Args:
        first: what a variant scored on each item, such as 0 or 1. Shape `(seeds, items)`.
        second: the other, on the same seeds and items. Shape `(seeds, items)`.
        generator: draws the resamples.
        over_seeds: whether seeds are drawn, too; else the interval is for these very prompts.
        num_resamples: how often items, and seeds, are drawn.

    Raises:
        DataError: if the shapes differ, are not two axes or empty, or a number is not finite.

    Reference:
        Owen 2007, arXiv 0712.1111, the pigeonhole bootstrap.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 2 or not one.size:
        raise DataError(
            f"answers must be (seeds, items) alike, but have shapes {one.shape} and {other.shape}."
        )
    gaps = one - other  # (seeds, items)
    if not np.isfinite(gaps).all():
        raise DataError("answers must be finite numbers, but have NaN or infinity.")
    num_seeds, num_items = gaps.shape
    means = []
    for start in range(0, num_resamples, _CHUNK):
        size = min(_CHUNK, num_resamples - start)
        seeds = np.ones((size, num_seeds), dtype=np.int64)
        if over_seeds:
            seeds = generator.multinomial(num_seeds, [1 / num_seeds] * num_seeds, size=size)
        items = generator.multinomial(num_items, [1 / num_items] * num_items, size=size)
        means.append(((seeds @ gaps) * items).sum(axis=1) / gaps.size)
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


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
