"""Intervals of a mean over seeds, for one task or averaged over several.

Letters: `T` tasks; `n_t`, `m_t`, `s_t` number, mean and standard deviation of task `t`'s scores;
`θ = (1/T) Σ m_t` the mean over tasks; `v_t = s_t² / n_t` and `se² = (1/T²) Σ v_t`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from softprompts.lab.analysis.samples import (
    LEVEL,
    Floats,
    Sample,
    Samples,
    check_level,
    is_constant,
    sample,
    samples,
)

Interval = tuple[float, float]

_FEWEST = 4
"""Fewer seeds tell no skewness."""

_MIN_RATIO = 1e-6
"""Below it, Hall's interval is Student's within rounding."""


def mean_interval(tasks: Samples, level: float = LEVEL) -> Interval | None:
    """Return Student's interval of the mean over seeds, averaged over tasks.

    `θ ± t(df) se`, with Satterthwaite's `df = (Σ v_t)² / Σ (v_t² / (n_t − 1))`. It covers what
    training again with other seeds would change, on the same rows. The tasks are taken as given.

    Returns:
        Both ends; `None` where a task has fewer than two seeds. Equal ends where every task's
        scores are all equal.

    Raises:
        DataError: if scores are not finite.
    """
    check_level(level)
    values = samples(tasks)
    if min(map(len, values)) < 2:
        return None
    mean = stratified_mean(values)
    if all(map(is_constant, values)):
        return mean, mean
    error, df = standard_error(values)
    half = error * float(stats.t.ppf((1 + level) / 2, df))
    return mean - half, mean + half


def skewed_interval(scores: Sample, level: float = LEVEL) -> Interval | None:
    """Return Hall's interval of the mean over seeds, which is longer on the side of the tail.

    With `T = √n (m − μ) / s`, skewness `g` and `r = g / √n`, the statistic
    `h(T) = T + r T²/3 + r² T³/27 + r/6` is near Student's `t(n − 1)` where `T` is not; the ends are
    `m − s h⁻¹(±t) / √n`.

    Returns:
        Both ends; `None` with fewer than two seeds. Student's with two or three, whose skewness
        says next to nothing.

    Raises:
        DataError: if scores are not finite.

    Reference:
        Hall 1992, On the removal of skewness by transformation, section 2.

    Differences:
        Quantiles are Student's, not the normal ones, and `g` is `skewness`.
    """
    values = sample(scores)
    found = mean_interval([values], level)
    if found is None or len(values) < _FEWEST:
        return found
    mean, half = float(values.mean()), float(stats.t.ppf((1 + level) / 2, len(values) - 1))
    error, ratio = float(stats.sem(values)), skewness(values) / math.sqrt(len(values))
    if abs(ratio) < _MIN_RATIO:
        return found
    ends = np.cbrt(1 + ratio * (np.array([half, -half]) - ratio / 6)) - 1
    low, high = mean - error * 3 / ratio * ends
    return float(low), float(high)


def skewness(values: Floats) -> float:
    """Return Fisher and Pearson's adjusted skewness; 0 where scores are equal or under three."""
    n = len(values)
    if n < 3 or is_constant(values):
        return 0.0
    parts = (values - values.mean()) / values.std()
    return float((parts**3).mean() * math.sqrt(n * (n - 1)) / (n - 2))


def looks_skewed(scores: Sample) -> bool:
    """Return whether the skewness is beyond two of its standard deviations; never of under four."""
    values = sample(scores, at_least=0)
    n = len(values)
    if n < _FEWEST:
        return False
    deviation = math.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    return abs(skewness(values)) > 2 * deviation


def stratified_mean(values: Sequence[Floats]) -> float:
    """Return the mean over tasks of the means over seeds."""
    return float(np.mean([x.mean() for x in values]))


def standard_error(values: Sequence[Floats]) -> tuple[float, float]:
    """Return the standard error of `stratified_mean`, and Satterthwaite's degrees of freedom.

    Args:
        values: scores per task, two seeds or more; not all equal in every task.

    Reference:
        Satterthwaite 1946, An approximate distribution of estimates of variance components.
    """
    parts = np.array([x.var(ddof=1) / len(x) for x in values])
    df = parts.sum() ** 2 / sum(
        part**2 / (len(x) - 1) for part, x in zip(parts, values, strict=True)
    )
    return float(np.sqrt(parts.sum()) / len(values)), float(df)
