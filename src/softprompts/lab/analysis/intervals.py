"""Intervals of a mean over seeds, for one task or averaged over several.

Letters: `T` tasks; `n_t`, `m_t`, `s_t` number, mean and standard deviation of task `t`'s scores;
`θ = (1/T) Σ m_t` the mean over tasks; `v_t = s_t² / n_t` and `se² = (1/T²) Σ v_t`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from softprompts.lab.analysis.samples import (
    LEVEL,
    Floats,
    Samples,
    check_level,
    is_constant,
    samples,
)

Interval = tuple[float, float]


def mean_interval(tasks: Samples, level: float = LEVEL) -> Interval | None:
    """Return Student's interval of the mean over seeds, averaged over tasks.

    `θ ± t(df) se`, with Satterthwaite's `df = (Σ v_t)² / Σ (v_t² / (n_t − 1))`. It covers what
    training again with other seeds would change, on the same rows. The tasks are taken as given.

    Args:
        tasks: scores per task, one per seed.
        level: how often the interval should cover.

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
