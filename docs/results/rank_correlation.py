"""Do two properties of variants go together? Rank correlation, with what is uncertain about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from other_intervals import NUM_RESAMPLES, draw_indices
from scipy import stats

from softprompts.errors import DataError
from softprompts.lab.analysis.statistics import (
    LEVEL,
    Floats,
    Interval,
    Sample,
    Samples,
    check_level,
    is_constant,
    sample,
    samples,
)

_LEAST = 3


@final
@dataclass(frozen=True)
class RankCorrelation:
    """How one property of variants goes with another.

    Attributes:
        value: Spearman's `ρ`; `None` where it is not defined.
        over_seeds: its interval if the same variants were trained with other seeds.
        over_variants: its interval if other variants like these had been looked at.
        p: two-sided chance of so large a `|ρ|` if the two had nothing to do with each other.
        num_variants: how many variants there are.
    """

    value: float | None
    over_seeds: Interval | None
    over_variants: Interval | None
    p: float | None
    num_variants: int


def rank_correlation(first: Sample, second: Sample) -> float | None:
    """Return Spearman's rank correlation; equal numbers share the mean of their ranks.

    `ρ = cov(r, s) / (std r · std s)`, `r` and `s` the ranks of both.

    Args:
        first: one number per variant.
        second: another, of the same variants.

    Returns:
        A number from -1 to 1; `None` with fewer than three variants, or where all numbers of one
        are equal.

    Raises:
        DataError: if they are not equally many, or one is not finite.

    Reference:
        Spearman 1904, The proof and measurement of association between two things.

    Example:
        >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
        0.8
    """
    one, other = sample(first, "numbers", 0), sample(second, "numbers", 0)
    if len(one) != len(other):
        raise DataError(
            f"numbers must be of the same variants, but are {len(one)} and {len(other)}."
        )
    if len(one) < _LEAST or is_constant(one) or is_constant(other):
        return None
    (value,) = _correlations(one[None], other[None])
    return float(round(value, 12))


def mean_and_spread(
    first: Samples,
    second: Samples,
    generator: np.random.Generator,
    *,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
) -> RankCorrelation:
    """Correlate the mean of one property with the standard deviation over seeds of another.

    As of sharpness with scores: do variants with sharper minima spread more? `over_seeds` draws
    seeds of each variant again, those of either property by themselves; `over_variants` draws
    variants again. Both take quantiles; resamples without a correlation are left out. `p` counts
    `|ρ|` at least as large among random pairings, the found one among them.

    Args:
        first: numbers of each variant, one per seed.
        second: other numbers of each, one per seed, two or more.
        generator: draws resamples and pairings.
        level: how often intervals should cover.
        num_resamples: how many resamples and pairings.

    Returns:
        The correlation; without intervals and `p` where it is not defined.

    Raises:
        DataError: if they are not of equally many variants, are too few, or one is not finite.
    """
    check_level(level)
    ones, others = samples(first, "numbers"), samples(second, "numbers", 2)
    means = np.array([x.mean() for x in ones])
    stds = np.array([x.std(ddof=1) for x in others])
    value = rank_correlation(means, stds)
    if value is None:
        return RankCorrelation(None, None, None, None, len(ones))
    drawn_means = _redrawn(ones, generator, num_resamples).mean
    drawn_stds = _redrawn(others, generator, num_resamples).std
    picked = generator.integers(len(ones), size=(num_resamples, len(ones)))
    paired = generator.permuted(np.tile(stds, (num_resamples, 1)), axis=1)
    chance = _correlations(np.broadcast_to(means, paired.shape), paired)
    hits = int((np.abs(chance) >= abs(value) - 1e-9).sum())
    return RankCorrelation(
        value=value,
        over_seeds=_quantiles(_correlations(drawn_means, drawn_stds), level),
        over_variants=_quantiles(_correlations(means[picked], stds[picked]), level),
        p=(hits + 1) / (num_resamples + 1),
        num_variants=len(ones),
    )


@final
@dataclass(frozen=True)
class _Redrawn:
    """What variants' numbers are when seeds are drawn again. Shape of both `(runs, variants)`."""

    mean: Floats
    std: Floats


def _redrawn(
    variants: list[Floats], generator: np.random.Generator, num_resamples: int
) -> _Redrawn:
    indices = draw_indices(variants, generator, num_resamples)
    drawn = [x[places] for x, places in zip(variants, indices, strict=True)]  # (runs, seeds) each
    many = [x if x.shape[1] > 1 else np.repeat(x, 2, axis=1) for x in drawn]
    return _Redrawn(
        np.stack([x.mean(axis=1) for x in drawn], axis=1),
        np.stack([x.std(axis=1, ddof=1) for x in many], axis=1),
    )


def _correlations(first: Floats, second: Floats) -> Floats:
    """Return Spearman's `ρ` line by line, NaN where a line is constant. Shape `(runs,)`."""
    one, other = (_centred(stats.rankdata(np.round(x, 12), axis=1)) for x in (first, second))
    with np.errstate(invalid="ignore"):  # a constant line
        found: Floats = (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return found


def _centred(ranks: Floats) -> Floats:
    centred: Floats = ranks - ranks.mean(axis=1, keepdims=True)
    return centred


def _quantiles(values: Floats, level: float) -> Interval | None:
    usable = values[np.isfinite(values)]
    if not len(usable):
        return None
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
