"""What several seeds say about a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Spread:
    """Scores of one variant on one task over seeds, all in `[0, 1]`.

    Attributes:
        scores: one per seed that finished, in seed order.
        mean: their mean; `None` without scores.
        std: their sample standard deviation (`n - 1`); `None` with fewer than two.
        min: the lowest.
        max: the highest.
        interval: 95 % interval of the mean over seeds by Student's t; `None` with fewer than two.
    """

    scores: tuple[float, ...]
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    interval: tuple[float, float] | None


def spread(scores: Sequence[float]) -> Spread:
    """Summarize scores over seeds.

    Args:
        scores: one per seed.

    Returns:
        Mean, spread and interval; entries that need more scores are `None`.

    Example:
        >>> spread([0.5, 0.7]).mean
        0.6
    """
    values = tuple(scores)
    if not values:
        return Spread((), None, None, None, None, None)
    mean = fmean(values)
    if len(values) < 2:
        return Spread(values, mean, None, min(values), max(values), None)
    deviation = stdev(values)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return Spread(values, mean, deviation, min(values), max(values), (mean - half, mean + half))
