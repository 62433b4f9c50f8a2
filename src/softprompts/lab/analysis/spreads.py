"""Does one variant spread less over seeds than another?

Letters: `s_A`, `s_B` the standard deviations of a task's scores, `n` its seeds. Over several tasks,
a variant's spread is the root of the mean over tasks of `s²`: how far a run lies from the mean
of its task. All take two variants' scores per task, of the same seeds, and raise `DataError` where
those do not fit together or are not finite.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
from scipy import stats

from softprompts.lab.analysis.statistics import (
    LEVEL,
    Floats,
    Interval,
    Samples,
    is_constant,
    paired_samples,
)

_MIN_SEEDS = 3


def std_ratio(first: Samples, second: Samples) -> float | None:
    """Return the ratio of standard deviations over seeds, first by second.

    `None` with fewer than two seeds, or where the second does not spread at all.
    """
    one, other = paired_samples(first, second)
    if min(map(len, one)) < 2 or all(map(is_constant, other)):
        return None
    return math.sqrt(_variance(one) / _variance(other))


def std_ratio_interval(first: Samples, second: Samples) -> Interval | None:
    """Return Miller's 95 % interval of `std_ratio`, by the jackknife.

    `θ = log(s_A² / s_B²)`; leaving out one seed, of both variants, gives `θ_i`;
    `v = Σ_t (n_t − 1)/n_t Σ_i (θ_i − mean θ_i)²`; the interval is `exp((θ ± t √v) / 2)`.

    Returns:
        Both ends; `None` with fewer than three seeds, where a variant does not spread, or where
        an end is not finite.

    Reference:
        Miller 1968, Jackknifing variances.
    """
    one, other = paired_samples(first, second)
    if min(map(len, one)) < _MIN_SEEDS or any(all(map(is_constant, v)) for v in (one, other)):
        return None
    pairs = zip(_without_each(one), _without_each(other), strict=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # a variant without spread, seen below
        logs = [np.log(top / bottom) for top, bottom in pairs]
    if not all(np.isfinite(x).all() for x in logs):
        return None
    variance = sum((len(x) - 1) / len(x) * float(((x - x.mean()) ** 2).sum()) for x in logs)
    df = sum(len(x) - 1 for x in one)
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * math.sqrt(variance)
    whole = math.log(_variance(one) / _variance(other))
    low, high = math.exp((whole - half) / 2), math.exp((whole + half) / 2)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _variance(values: Sequence[Floats]) -> float:
    return float(np.mean([x.var(ddof=1) for x in values]))


def _without_each(values: Sequence[Floats]) -> list[Floats]:
    """Return, per task, the mean variance over tasks without each of its scores."""
    variances = [float(x.var(ddof=1)) for x in values]
    found = []
    for x, variance in zip(values, variances, strict=True):
        n = len(x)  # without one of n, s² is ((n − 1) s² − n/(n − 1) (x − m)²) / (n − 2)
        own = ((n - 1) * variance - n / (n - 1) * (x - x.mean()) ** 2) / (n - 2)
        own = np.where(own > 1e-12 * variance, own, 0.0)
        found.append((sum(variances) - variance + own) / len(values))
    return found


def brown_forsythe(first: Samples, second: Samples) -> float | None:
    """Test whether two variants spread alike, by the distances of scores from their median.

    One task: Levene's test with medians. Several: the tasks' one-sided results, signed by which
    variant spreads more, are combined by Stouffer's sum `Σ z_t / √T`. The test does not use that
    seeds are shared.

    Returns:
        A two-sided p-value; `None` where no task can tell: fewer than three seeds, or distances
        that are all equal. Tasks that cannot tell are left out of the sum.

    Reference:
        Brown and Forsythe 1974, Robust tests for the equality of variances.
    """
    pairs = [pair for pair in zip(*paired_samples(first, second), strict=True) if _can_tell(*pair)]
    if not pairs:
        return None
    scores = []
    for x, y in pairs:
        statistic = float(stats.levene(x, y, center="median").statistic)
        tail = float(stats.t.sf(math.sqrt(statistic), len(x) + len(y) - 2))
        score = float(stats.norm.isf(max(tail, sys.float_info.min)))  # finite, to be summed
        scores.append(math.copysign(score, _distances(x).mean() - _distances(y).mean()))
    return float(2 * stats.norm.sf(abs(sum(scores)) / math.sqrt(len(scores))))


def _can_tell(x: Floats, y: Floats) -> bool:
    return len(x) >= _MIN_SEEDS and not (is_constant(_distances(x)) and is_constant(_distances(y)))


def _distances(x: Floats) -> Floats:
    return np.abs(x - np.median(x))
