"""What several seeds say about a score: checked arrays, mean, spread, and intervals of the mean.

Letters: `T` tasks; `n_t`, `m_t`, `s_t` number, mean and standard deviation of task `t`'s scores;
`θ = (1/T) Σ m_t` the mean over tasks; `v_t = s_t² / n_t` and `se² = (1/T²) Σ v_t`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from softprompts.errors import DataError

Floats = NDArray[np.float64]
Sample = Sequence[float] | Floats
"""Scores on one task: one number per seed."""
Samples = Sequence[Sample]
"""Scores of one variant: one sample per task."""
Interval = tuple[float, float]

NUM_RESAMPLES = 9999
LEVEL = 0.95

_FEWEST = 4
"""Fewer seeds tell no skewness."""

_MIN_RATIO = 1e-6
"""Below it, Hall's interval is Student's within rounding."""


@dataclass(frozen=True)
class Spread:
    """Scores of one variant on one task over seeds.

    Attributes:
        scores: one per seed that finished, in seed order.
        mean: their mean; `None` without scores.
        std: their sample standard deviation (`n - 1`); `None` with fewer than two.
        min: the lowest.
        max: the highest.
        interval: 95 % interval of the mean over seeds, by Student's t with Hall's transformation
            for skewed scores; `None` with fewer than two. It says nothing of other items.
        median: the middle score.
        interquartile_mean: the mean without the lowest and the highest quarter, of which whole
            scores are left out: of five, one on each side.
    """

    scores: tuple[float, ...]
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    interval: Interval | None
    median: float | None
    interquartile_mean: float | None


def spread(scores: Sequence[float]) -> Spread:
    """Summarize scores over seeds; entries that need more scores are `None`.

    Raises:
        DataError: if a score is not a finite number.

    Reference:
        Agarwal et al. 2021, arXiv 2108.13264, for the interquartile mean.

    Example:
        >>> round(spread([0.5, 0.7]).mean, 6)
        0.6
    """
    values = sample(scores, at_least=0)
    kept = tuple(float(value) for value in values)
    if not kept:
        return Spread((), *[None] * 7)
    return Spread(
        scores=kept,
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if len(kept) > 1 else None,
        min=min(kept),
        max=max(kept),
        interval=skewed_interval(kept),
        median=float(np.median(values)),
        interquartile_mean=float(stats.trim_mean(values, 0.25)),
    )


def sample(values: Sample, name: str = "scores", at_least: int = 1) -> Floats:
    """Return numbers as an array, after checking them. Shape `(seeds,)`.

    Raises:
        DataError: if there are too few, they are no flat list, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise DataError(f"{name} must be one number per seed, but have shape {array.shape}.")
    if len(array) < at_least:
        raise DataError(f"{name} must be at least {at_least}, but are {len(array)}.")
    wrong = array[~np.isfinite(array)]
    if len(wrong):
        raise DataError(f"{name} must be finite numbers, but have {wrong[0]}.")
    return array


def samples(tasks: Samples, name: str = "scores", at_least: int = 1) -> list[Floats]:
    """Return one checked array per task. Shape of each `(seeds,)`.

    Raises:
        DataError: if there is no task, or `sample` refuses one.
    """
    if not len(tasks):
        raise DataError(f"{name} must be those of at least one task, but are of 0.")
    return [sample(task, name, at_least) for task in tasks]


def paired_samples(first: Samples, second: Samples) -> tuple[list[Floats], list[Floats]]:
    """Return two variants' arrays, whose numbers belong together seed by seed.

    Raises:
        DataError: if tasks or seeds are not equally many, or `sample` refuses one.
    """
    one, other = samples(first), samples(second)
    sizes, others = [len(task) for task in one], [len(task) for task in other]
    if sizes != others:
        raise DataError(
            f"paired scores must be of the same seeds, but are {sizes} and {others} per task."
        )
    return one, other


def is_constant(values: Floats) -> bool:
    """Return whether all numbers are equal up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def check_level(level: float, name: str = "level") -> float:
    """Return a probability; a `DataError` where it is not strictly between 0 and 1."""
    if not 0 < level < 1:
        raise DataError(f"{name} must be between 0 and 1, but is {level}.")
    return level


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
