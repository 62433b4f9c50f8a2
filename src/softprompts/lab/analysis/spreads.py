"""Does one variant spread less over seeds than another?

Letters: `s_A`, `s_B` the standard deviations of a task's scores, `n` its seeds. Over several tasks,
a variant's spread is the root of the mean over tasks of `s²`: how far a run lies from the mean
of its task.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from softprompts.lab.analysis.intervals import Interval
from softprompts.lab.analysis.samples import (
    LEVEL,
    NUM_RESAMPLES,
    Floats,
    Sample,
    Samples,
    check_generator,
    check_level,
    check_method,
    draw_indices,
    is_constant,
    paired_samples,
)

_MIN_SEEDS = 3


def std_ratio(first: Samples, second: Samples) -> float | None:
    """Return the ratio of standard deviations over seeds, first by second.

    Args:
        first: a variant's scores per task.
        second: the other's, of the same seeds.

    Returns:
        The ratio; `None` with fewer than two seeds, or where the second does not spread at all.

    Raises:
        DataError: if the scores do not fit together or are not finite.
    """
    one, other = paired_samples(first, second)
    if min(map(len, one)) < 2 or all(map(is_constant, other)):
        return None
    return math.sqrt(_variance(one) / _variance(other))


def std_ratio_interval(
    first: Samples,
    second: Samples,
    method: str = "jackknife",
    *,
    generator: np.random.Generator | None = None,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval | None:
    """Return an interval of `std_ratio`.

    - `jackknife`: Miller's. `θ = log(s_A² / s_B²)`; leaving out one seed, of both variants, gives
      `θ_i`; `v = Σ_t (n_t − 1)/n_t Σ_i (θ_i − mean θ_i)²`; the interval is `exp((θ ± t √v) / 2)`.
    - `bootstrap`: quantiles of the ratio over resampled seeds, the same for both variants.
      Resamples in which neither variant spreads are left out; one in which only the second does not
      counts as infinite.
    - `f`: `s_A / s_B / √F`, right for independent normal scores.

    Args:
        first: a variant's scores per task.
        second: the other's, of the same seeds.
        method: one of the above.
        generator: draws the resamples of `bootstrap`.
        level: how often the interval should cover.
        num_resamples: how many resamples.

    Returns:
        Both ends; `None` with fewer than three seeds, where a variant does not spread, or where
        an end is not finite.

    Raises:
        DataError: if the scores do not fit together, or a bootstrap has no generator.
        UnknownNameError: if there is no such method.

    Reference:
        Miller 1968, Jackknifing variances.
    """
    check_method(method, RATIO_METHODS)
    check_level(level)
    one, other = paired_samples(first, second)
    if min(map(len, one)) < _MIN_SEEDS or any(all(map(is_constant, v)) for v in (one, other)):
        return None
    if method == "bootstrap":
        drawn = draw_indices(one, check_generator(generator, method), num_resamples)
        low, high = _bootstrap(one, other, drawn, level)
    else:
        low, high = _ANALYTIC[method](one, other, level)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _variance(values: Sequence[Floats]) -> float:
    """Return the mean over tasks of the variance over seeds."""
    return float(np.mean([x.var(ddof=1) for x in values]))


def _jackknife(one: Sequence[Floats], other: Sequence[Floats], level: float) -> Interval:
    with np.errstate(divide="ignore", invalid="ignore"):  # a variant without spread, seen below
        logs = [
            np.log(top / bottom)
            for top, bottom in zip(_without_each(one), _without_each(other), strict=True)
        ]
    if not all(np.isfinite(x).all() for x in logs):
        return math.nan, math.nan
    variance = sum((len(x) - 1) / len(x) * float(((x - x.mean()) ** 2).sum()) for x in logs)
    df = sum(len(x) - 1 for x in one)
    half = float(stats.t.ppf((1 + level) / 2, df)) * math.sqrt(variance)
    whole = math.log(_variance(one) / _variance(other))
    return math.exp((whole - half) / 2), math.exp((whole + half) / 2)


def _without_each(values: Sequence[Floats]) -> list[Floats]:
    """Return, per task, the mean variance over tasks without each of its scores.

    Leaving out `x` of `n` scores turns `s²` into `((n − 1) s² − n/(n − 1) (x − m)²) / (n − 2)`.
    """
    variances = [float(x.var(ddof=1)) for x in values]
    found = []
    for x, variance in zip(values, variances, strict=True):
        n = len(x)
        own = ((n - 1) * variance - n / (n - 1) * (x - x.mean()) ** 2) / (n - 2)
        own = np.where(own > 1e-12 * variance, own, 0.0)
        found.append((sum(variances) - variance + own) / len(values))
    return found


def _f_quantiles(one: Sequence[Floats], other: Sequence[Floats], level: float) -> Interval:
    def df(values: Sequence[Floats]) -> float:
        parts = [x.var(ddof=1) for x in values]
        shares = sum(v**2 / (len(x) - 1) for v, x in zip(parts, values, strict=True))
        return float(sum(parts) ** 2 / shares)

    ratio = _variance(one) / _variance(other)
    ends = stats.f.ppf([(1 + level) / 2, (1 - level) / 2], df(one), df(other))
    return math.sqrt(ratio / ends[0]), math.sqrt(ratio / ends[1])


def _bootstrap(
    one: Sequence[Floats],
    other: Sequence[Floats],
    indices: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.intp]]],
    level: float,
) -> Interval:
    sums = [
        sum(x[drawn].var(axis=1, ddof=1) for x, drawn in zip(values, indices, strict=True))
        for values in (one, other)
    ]
    tops, bottoms = (np.where(total > 1e-20, total, 0.0) for total in sums)  # (runs,)
    usable = (tops > 0) | (bottoms > 0)
    with np.errstate(divide="ignore"):
        ratios = np.sqrt(tops[usable] / bottoms[usable])
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


_ANALYTIC: dict[str, Callable[[Sequence[Floats], Sequence[Floats], float], Interval]] = {
    "jackknife": _jackknife,
    "f": _f_quantiles,
}
RATIO_METHODS = (*_ANALYTIC, "bootstrap")


def brown_forsythe(first: Samples, second: Samples) -> float | None:
    """Test whether two variants spread alike, by the distances of scores from their median.

    One task: Levene's test with medians. Several: the tasks' one-sided results, signed by which
    variant spreads more, are combined by Stouffer's sum `Σ z_t / √T`. The test does not use that
    seeds are shared.

    Args:
        first: a variant's scores per task.
        second: the other's, of the same seeds.

    Returns:
        A two-sided p-value; `None` where no task can tell: fewer than three seeds, or distances
        that are all equal. Tasks that cannot tell are left out of the sum; see
        `is_spread_testable`.

    Raises:
        DataError: if the scores do not fit together or are not finite.

    Reference:
        Brown and Forsythe 1974, Robust tests for the equality of variances.
    """
    pairs = [
        pair for pair in zip(*paired_samples(first, second), strict=True) if _is_testable(*pair)
    ]
    if not pairs:
        return None
    scores = []
    for x, y in pairs:
        statistic = float(stats.levene(x, y, center="median").statistic)
        tail = float(stats.t.sf(math.sqrt(statistic), len(x) + len(y) - 2))
        score = float(stats.norm.isf(max(tail, sys.float_info.min)))  # finite, to be summed
        scores.append(math.copysign(score, _distances(x).mean() - _distances(y).mean()))
    return float(2 * stats.norm.sf(abs(sum(scores)) / math.sqrt(len(scores))))


def is_spread_testable(first: Sample, second: Sample) -> bool:
    """Return whether `brown_forsythe` can tell anything on one task.

    Args:
        first: a variant's scores.
        second: the other's.

    Returns:
        Whether there are three seeds or more, and distances from the median that differ.
    """
    one, other = paired_samples([first], [second])
    return _is_testable(one[0], other[0])


def _is_testable(x: Floats, y: Floats) -> bool:
    if len(x) < _MIN_SEEDS:
        return False
    return not (is_constant(_distances(x)) and is_constant(_distances(y)))


def _distances(x: Floats) -> Floats:
    return np.abs(x - np.median(x))
