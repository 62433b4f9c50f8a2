"""Rank correlation against scipy, and its uncertainty against simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from analysis_material import SCORE, generator
from hypothesis import assume, given
from hypothesis import strategies as st
from rank_correlation import mean_and_spread, rank_correlation
from scipy import stats

from softprompts.errors import DataError

NUMBERS = st.lists(st.tuples(SCORE, SCORE), min_size=3, max_size=9)


@given(NUMBERS)
def test_it_is_that_of_scipy_ties_and_all(pairs):
    first, second = map(list, zip(*pairs, strict=True))
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    expected = stats.spearmanr(first, second).statistic
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-9)
    assert rank_correlation(second, first) == pytest.approx(expected, abs=1e-9)


def test_it_needs_three_numbers_that_differ():
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None
    assert rank_correlation([5, 5, 5], [1, 2, 3]) is None
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == -1.0


def test_numbers_that_do_not_fit_together():
    with pytest.raises(DataError, match="of the same variants, but are 3 and 2"):
        rank_correlation([1, 2, 3], [1, 2])
    with pytest.raises(DataError, match="must be finite numbers, but have nan"):
        rank_correlation([1, 2, float("nan")], [1, 2, 3])
    with pytest.raises(DataError, match="must be at least 2, but are 1"):
        mean_and_spread([[1]] * 3, [[1, 2], [1, 2], [3]], generator())
    with pytest.raises(DataError, match="level must be between 0 and 1, but is 2"):
        mean_and_spread([[1]] * 3, [[1, 2]] * 3, generator(), level=2)


def spreads(*sizes):
    return [[0.5 - size, 0.5, 0.5 + size] for size in sizes]


def test_the_value_is_of_means_and_standard_deviations():
    sharpness = [[1.0, 1.2], [5.0, 1.0], [2.0], [0.1, 0.2, 0.3]]
    scores = [[0.5, 0.6, 0.4], [0.2, 0.9], [0.5, 0.52], [0.3, 0.35]]
    expected = stats.spearmanr([1.1, 3.0, 2.0, 0.2], [np.std(x, ddof=1) for x in scores]).statistic
    found = mean_and_spread(sharpness, scores, generator())
    assert found.value == pytest.approx(expected)
    assert found.num_variants == 4


def test_p_is_that_of_all_pairings():
    sharpness, sizes = [[1.0], [2.0], [3.0], [4.0], [5.0]], (0.1, 0.3, 0.2, 0.5, 0.4)
    found = mean_and_spread(sharpness, spreads(*sizes), generator(), num_resamples=20000)
    all_of_them = [
        stats.spearmanr(range(5), order).statistic for order in itertools.permutations(sizes)
    ]
    expected = np.mean(np.abs(all_of_them) >= abs(found.value) - 1e-9)
    assert found.value == pytest.approx(0.8)
    assert found.p == pytest.approx(expected, abs=0.01)


def test_intervals_say_what_was_drawn_again():
    apart = [[float(n)] * 3 for n in range(6)]
    wide = [list(10.0**n * np.linspace(-1, 1, 12)) for n in range(6)]
    found = mean_and_spread(apart, wide, generator())
    low, high = found.over_seeds  # spreads lie far apart: other seeds change few ranks
    assert 0.9 < low <= high <= 1.0
    assert found.over_variants == pytest.approx((1.0, 1.0))  # any of these variants are in order
    order = (0.3, 0.1, 0.2, 0.6, 0.4, 0.5)
    loose = mean_and_spread(apart, spreads(*order), generator())
    assert loose.over_variants[0] < loose.value < loose.over_variants[1]


def test_an_interval_over_seeds_covers_what_other_seeds_give():
    rng = generator(3)
    widths, steepness = np.linspace(0.02, 0.2, 8), np.linspace(1, 3, 8)
    truth, hits, rounds = 1.0, 0, 60
    for _ in range(rounds):
        scores = [rng.normal(0.6, width, 10) for width in widths]
        sharpness = [rng.normal(one, 0.1, 4) for one in steepness]
        found = mean_and_spread(sharpness, scores, rng, num_resamples=200)
        low, high = found.over_seeds
        hits += low - 0.15 <= truth <= high + 0.15
    assert hits >= 0.9 * rounds


def test_without_a_correlation_there_is_nothing_to_say():
    found = mean_and_spread([[1.0], [1.0], [1.0]], spreads(0.1, 0.2, 0.3), generator())
    assert (found.value, found.over_seeds, found.over_variants, found.p) == (None,) * 4
    assert found.num_variants == 3


def test_the_same_draws_say_the_same():
    data = [[1.0], [2.0], [3.0]], spreads(0.2, 0.1, 0.3)
    assert mean_and_spread(*data, generator(1)) == mean_and_spread(*data, generator(1))
