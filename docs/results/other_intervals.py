"""Intervals that `write_statistics.py` measures beside those of the library, which cover better.

Letters are those of `softprompts.lab.analysis.statistics` and `spreads`. Resamples are drawn within
tasks, the same seeds for both variants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from softprompts.lab.analysis.improvement import improvement_interval
from softprompts.lab.analysis.spreads import std_ratio_interval
from softprompts.lab.analysis.statistics import (
    LEVEL,
    Floats,
    Interval,
    Samples,
    is_constant,
    mean_interval,
    paired_samples,
    samples,
    skewed_interval,
    standard_error,
    stratified_mean,
)

NUM_RESAMPLES, CHUNK = 9999, 256
MEAN_METHODS = ("t", "percentile", "bca", "studentized")
ONE_TASK_METHODS = ("t", "hall", "bca", "studentized")
RATIO_METHODS = ("jackknife", "f", "bootstrap")
IMPROVEMENT_METHODS = ("score", "bootstrap")


def mean_by(
    method: str,
    tasks: Samples,
    generator: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval | None:
    """Return an interval of the mean over seeds, averaged over tasks.

    - `t`: that of the library for differences.
    - `hall`: that of the library for the scores of one task.
    - `percentile`: quantiles of the resampled means.
    - `bca`: the same, bias-corrected and accelerated.
    - `studentized`: `θ − q se`, `q` the quantiles of `(θ* − θ) / se*`; resamples whose scores are
      all equal have no `se*` and are left out. The others must differ: two seeds of one task give
      one ratio only.

    Reference:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 12 to 14.
    """
    values = samples(tasks)
    if method == "t" or min(map(len, values)) < 2 or all(map(is_constant, values)):
        return mean_interval(values)
    if method == "hall":
        return skewed_interval(values[0])
    means, errors = _resample(values, generator, num_resamples)
    ways = {"percentile": _percentile, "bca": _bca, "studentized": _studentized}
    return ways[method](values, means, errors, LEVEL)


def ratio_by(
    method: str,
    first: Samples,
    second: Samples,
    generator: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval | None:
    """Return an interval of the ratio of standard deviations.

    - `jackknife`: that of the library.
    - `bootstrap`: quantiles of the ratio over resampled seeds. Resamples in which neither variant
      spreads are left out; one in which only the second does not counts as infinite.
    - `f`: `s_A / s_B / √F`, right for independent normal scores.
    """
    one, other = paired_samples(first, second)
    if method == "jackknife":
        return std_ratio_interval(one, other)
    if min(map(len, one)) < 3 or any(all(map(is_constant, v)) for v in (one, other)):
        return None
    if method == "f":
        return _f_quantiles(one, other, LEVEL)
    low, high = _ratio_bootstrap(one, other, draw_indices(one, generator, num_resamples), LEVEL)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def improvement_by(
    method: str,
    first: Samples,
    second: Samples,
    generator: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return an interval of `probability_of_improvement`.

    - `score`: that of the library.
    - `bootstrap`: quantiles over resampled seeds.
    """
    one, other = paired_samples(first, second)
    if method == "score":
        return improvement_interval(one, other)
    means = np.zeros(num_resamples)
    drawn = draw_indices(one, generator, num_resamples)
    for x, y, indices in zip(one, other, drawn, strict=True):
        gaps = np.sign(x[indices][:, :, None] - y[indices][:, None, :])  # (runs, seeds, seeds)
        means += (gaps.mean(axis=(1, 2)) + 1) / 2 / len(one)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def draw_indices(
    tasks: Sequence[Floats], generator: np.random.Generator, num_resamples: int
) -> list[NDArray[np.intp]]:
    """Draw seeds with replacement within each task: the stratified bootstrap.

    Args:
        tasks: one array per task.
        generator: what draws.
        num_resamples: how often.

    Returns:
        Indices per task. Shape of each `(runs, seeds)`, a line per resample.
    """
    return [generator.integers(len(x), size=(num_resamples, len(x))) for x in tasks]


def _resample(
    values: Sequence[Floats], generator: np.random.Generator, num_resamples: int
) -> tuple[Floats, Floats]:
    """Return means and standard errors of resamples. Shapes `(runs,)` and `(runs,)`."""
    means, parts = np.zeros(num_resamples), np.zeros(num_resamples)
    for x, indices in zip(values, draw_indices(values, generator, num_resamples), strict=True):
        drawn = x[indices]  # (runs, seeds)
        means += drawn.mean(axis=1) / len(values)
        parts += drawn.var(axis=1, ddof=1) / x.size
    return means, np.sqrt(parts) / len(values)


def _percentile(values: Sequence[Floats], means: Floats, errors: Floats, level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _bca(values: Sequence[Floats], means: Floats, errors: Floats, level: float) -> Interval:
    """Shift the quantiles by `z0`, half the ties below, and the acceleration `a`.

    `a = Σ l³ / (6 (Σ l²)^{3/2})` over `l = (x − m_t) / (n_t − 1)`, the jackknife's influences.
    """
    mean = stratified_mean(values)
    tolerance = 1e-12 * max(1.0, abs(mean))
    below = np.mean(means < mean - tolerance) + np.mean(np.abs(means - mean) <= tolerance) / 2
    shift = stats.norm.ppf(below)
    pulls = np.concatenate([(x - x.mean()) / (len(x) - 1) for x in values])
    acceleration = (pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5)
    tails = shift + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, stats.norm.cdf(shift + tails / (1 - acceleration * tails)))
    return float(low), float(high)


def _studentized(
    values: Sequence[Floats], means: Floats, errors: Floats, level: float
) -> Interval | None:
    mean, (error, _) = stratified_mean(values), standard_error(values)
    usable = errors > 1e-12 * max(1.0, abs(mean))
    ratios = (means[usable] - mean) / errors[usable]
    if not ratios.size or is_constant(ratios):
        return None
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(mean - high * error), float(mean - low * error)


def _f_quantiles(one: Sequence[Floats], other: Sequence[Floats], level: float) -> Interval:
    def df(values: Sequence[Floats]) -> float:
        parts = [x.var(ddof=1) for x in values]
        shares = sum(v**2 / (len(x) - 1) for v, x in zip(parts, values, strict=True))
        return float(sum(parts) ** 2 / shares)

    ratio = np.mean([x.var(ddof=1) for x in one]) / np.mean([x.var(ddof=1) for x in other])
    ends = stats.f.ppf([(1 + level) / 2, (1 - level) / 2], df(one), df(other))
    return math.sqrt(ratio / ends[0]), math.sqrt(ratio / ends[1])


def _ratio_bootstrap(
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


def crossed_interval(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    generator: np.random.Generator,
    *,
    over_seeds: bool = True,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Return the pigeonhole bootstrap's interval of a difference, from answers `(seeds, items)`.

    Items are drawn again, the same for both variants, and seeds, independently of them; with
    `over_seeds=False` items alone. Owen 2007, arXiv 0712.1111.
    """
    gaps = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    num_seeds, num_items = gaps.shape
    means = []
    for start in range(0, num_resamples, CHUNK):
        size = min(CHUNK, num_resamples - start)
        seeds = np.ones((size, num_seeds), dtype=np.int64)
        if over_seeds:
            seeds = generator.multinomial(num_seeds, [1 / num_seeds] * num_seeds, size=size)
        items = generator.multinomial(num_items, [1 / num_items] * num_items, size=size)
        means.append(((seeds @ gaps) * items).sum(axis=1) / gaps.size)
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
