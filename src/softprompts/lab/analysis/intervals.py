"""Intervals of a mean over seeds, for one task or averaged over several.

Letters: `T` tasks; `n_t`, `m_t`, `s_t` number, mean and standard deviation of task `t`'s scores;
`θ = (1/T) Σ m_t` the mean over tasks; `v_t = s_t² / n_t` and `se² = (1/T²) Σ v_t`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from softprompts.lab.analysis.samples import (
    LEVEL,
    NUM_RESAMPLES,
    Floats,
    Samples,
    check_generator,
    check_level,
    check_method,
    draw_indices,
    is_constant,
    samples,
)

Interval = tuple[float, float]
_Resampling = Callable[[Sequence[Floats], Floats, Floats, float], Interval | None]


def mean_interval(
    tasks: Samples,
    method: str = "t",
    *,
    generator: np.random.Generator | None = None,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval | None:
    """Return an interval of the mean over seeds, averaged over tasks.

    It covers what training again with other seeds would change, on the same rows. The tasks are
    taken as given. Resampling is within tasks.

    - `t`: `θ ± t(df) se`, with Satterthwaite's `df = (Σ v_t)² / Σ (v_t² / (n_t − 1))`.
    - `percentile`: quantiles of the resampled means.
    - `bca`: the same, bias-corrected and accelerated.
    - `studentized`: `θ − q se`, `q` the quantiles of `(θ* − θ) / se*`; resamples whose scores are
      all equal have no `se*` and are left out. The others must differ: two seeds of one task give
      one ratio only.

    Args:
        tasks: scores per task, one per seed.
        method: one of the above.
        generator: draws the resamples; `t` needs none.
        level: how often the interval should cover.
        num_resamples: how many resamples.

    Returns:
        Both ends; `None` where a task has fewer than two seeds, or where scores differ and the
        ratios of `studentized` do not. Equal ends where every task's scores are all equal.

    Raises:
        DataError: if scores are not finite, or a bootstrap has no generator.
        UnknownNameError: if there is no such method.

    Reference:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 12 to 14.
    """
    check_method(method, METHODS)
    check_level(level)
    values = samples(tasks)
    if min(map(len, values)) < 2:
        return None
    mean = stratified_mean(values)
    if all(map(is_constant, values)):
        return mean, mean
    if method == "t":
        half, df = standard_error(values)
        half *= float(stats.t.ppf((1 + level) / 2, df))
        return mean - half, mean + half
    means, errors = _resample(values, check_generator(generator, method), num_resamples)
    return _RESAMPLING[method](values, means, errors, level)


def stratified_mean(values: Sequence[Floats]) -> float:
    """Return the mean over tasks of the means over seeds."""
    return float(np.mean([x.mean() for x in values]))


def standard_error(values: Sequence[Floats]) -> tuple[float, float]:
    """Return the standard error of `stratified_mean`, and Satterthwaite's degrees of freedom.

    Args:
        values: scores per task, two seeds or more; not all equal in every task.

    Returns:
        `se` and `df`.

    Reference:
        Satterthwaite 1946, An approximate distribution of estimates of variance components.
    """
    parts = np.array([x.var(ddof=1) / len(x) for x in values])
    df = parts.sum() ** 2 / sum(
        part**2 / (len(x) - 1) for part, x in zip(parts, values, strict=True)
    )
    return float(np.sqrt(parts.sum()) / len(values)), float(df)


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


_RESAMPLING: dict[str, _Resampling] = {
    "percentile": _percentile,
    "bca": _bca,
    "studentized": _studentized,
}
METHODS = ("t", *_RESAMPLING)
