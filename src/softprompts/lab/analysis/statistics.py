"""What several seeds say about a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from softprompts.lab.analysis.intervals import skewed_interval
from softprompts.lab.analysis.samples import sample


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
    interval: tuple[float, float] | None
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
