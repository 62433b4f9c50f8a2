"""What items leave open, and what could have been shown."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from analysis_material import generator, is_quantile
from other_intervals import crossed_interval
from scipy import stats

from softprompts.errors import DataError
from softprompts.lab.analysis.limits import (
    crossed_variances,
    detectable_difference,
    item_variance,
)


def test_items_of_a_share():
    assert item_variance(0.75, 56) == pytest.approx(stats.binom(56, 0.75).var() / 56**2)
    with pytest.raises(DataError, match=r"score must be in \[0, 1\] .* but is 1.5"):
        item_variance(1.5, 56)
    with pytest.raises(DataError, match="num_items must be at least 1, but is 0"):
        item_variance(0.5, 0)


def answers():
    draws = generator(5)
    return (draws.random((2, 3, 4)) < [[[0.8]], [[0.4]]]).astype(float)


def test_crossed_interval_is_that_of_all_resamples():
    first, second = answers()
    seeds = list(itertools.product(range(3), repeat=3))
    items = list(itertools.product(range(4), repeat=4))
    gaps = first - second
    means = [gaps[np.ix_(s, i)].mean() for s in seeds for i in items]
    found = crossed_interval(first, second, generator(), num_resamples=20_000)
    for end, share in zip(found, (0.025, 0.975), strict=True):
        assert is_quantile(end, means, share)
    alone = [gaps[:, i].mean() for i in items]
    found = crossed_interval(first, second, generator(), over_seeds=False, num_resamples=20_000)
    for end, share in zip(found, (0.025, 0.975), strict=True):
        assert is_quantile(end, alone, share)


def test_variances_of_crossed_answers_are_those_of_an_analysis_of_variance():
    first, second = answers()
    gaps, (num_seeds, num_items) = first - second, first.shape
    seeds, items = (gaps.mean(axis=axis, keepdims=True) for axis in (1, 0))
    of_items = num_seeds * ((items - gaps.mean()) ** 2).sum() / (num_items - 1)
    left = sum(
        (gaps[s, i] - seeds[s, 0] - items[0, i] + gaps.mean()) ** 2
        for s in range(num_seeds)
        for i in range(num_items)
    ) / ((num_seeds - 1) * (num_items - 1))
    assert left > 0
    assert crossed_variances(gaps) == pytest.approx((of_items / gaps.size, left / gaps.size))
    assert crossed_variances(gaps * 0) == (0, 0)


@pytest.mark.parametrize("df", [2, 4, 9.5, 40, 3000])
@pytest.mark.parametrize(("power", "level"), [(0.8, 0.95), (0.5, 0.9)])
def test_detectable_difference_has_its_power(df, power, level):
    shift = detectable_difference(0.02, df, power=power, level=level) / 0.02
    limit = stats.t.ppf((1 + level) / 2, df)
    found = stats.nct.sf(limit, df, shift) + stats.nct.cdf(-limit, df, shift)
    assert found == pytest.approx(power, abs=1e-5)


def test_detectable_difference_at_its_ends():
    known = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert detectable_difference(1, math.inf) == pytest.approx(known)
    assert detectable_difference(1, 9999) == pytest.approx(known, rel=1e-3)
    assert detectable_difference(0, 4) == 0
    assert detectable_difference(1, 1) == pytest.approx(16.334, abs=0.01)
    assert detectable_difference(1, 4, power=0.01) == 0


def test_one_degree_of_freedom_by_simulation():
    shift = detectable_difference(1, 1)
    draws = generator(2).normal(shift, 2**0.5, (40_000, 2))  # means have standard deviation 1
    ratios = np.abs(draws.mean(axis=1)) / (draws.std(axis=1, ddof=1) / 2**0.5)
    assert np.mean(ratios > stats.t.ppf(0.975, 1)) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((-1, 4), "standard error must be finite and at least 0, but is -1"),
        ((1, 0), "df must be above 0, but is 0"),
        ((math.nan, 4), "but is nan"),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(DataError, match=text):
        detectable_difference(*arguments)
    with pytest.raises(DataError, match="power must be between 0 and 1, but is 80"):
        detectable_difference(1, 4, power=80)
