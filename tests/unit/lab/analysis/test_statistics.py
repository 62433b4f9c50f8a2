"""Spread over seeds, with scipy as oracle."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_material import SCORE
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import DataError
from softprompts.lab.analysis.statistics import skewed_interval, spread


def test_spread_agrees_with_scipy():
    scores = [0.61, 0.55, 0.7, 0.64, 0.58]
    found = spread(scores)
    assert found.mean == pytest.approx(np.mean(scores))
    assert found.std == pytest.approx(np.std(scores, ddof=1))
    assert (found.min, found.max, found.median) == (0.55, 0.7, 0.61)
    assert found.interquartile_mean == pytest.approx(np.mean([0.58, 0.61, 0.64]))
    assert found.interval == skewed_interval(scores)


def test_what_needs_more_scores_is_none():
    assert set(vars(spread([])).values()) == {(), None}
    one = spread([0.5])
    assert (one.mean, one.min, one.max, one.median, one.interquartile_mean) == (0.5,) * 5
    assert one.std is None
    assert one.interval is None


@pytest.mark.parametrize("size", [1, 3, 4, 7, 8])
def test_interquartile_mean_leaves_whole_quarters_out(size):
    scores = np.random.default_rng(0).random(size)
    cut = size // 4
    expected = np.mean(np.sort(scores)[cut : size - cut])
    assert spread(scores).interquartile_mean == pytest.approx(expected)


@given(st.lists(SCORE, min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_order_does_not_matter(scores, order):
    shuffled = [*scores]
    order.shuffle(shuffled)
    one, other = vars(spread(scores)), vars(spread(shuffled))
    assert one.pop("scores") == tuple(scores)
    assert other.pop("scores") == tuple(shuffled)
    for name, value in one.items():
        assert other[name] == pytest.approx(value, abs=1e-12), name
    low, high = one["interval"]
    assert low <= one["mean"] <= high


def test_equal_scores_have_an_interval_without_width():
    found = spread([0.1 + 0.2] * 5)
    assert found.interval == (found.mean, found.mean)
    assert found.std == pytest.approx(0, abs=1e-15)


def test_a_score_that_is_none_is_refused():
    with pytest.raises(DataError, match="scores must be finite numbers, but have nan"):
        spread([0.5, float("nan")])
