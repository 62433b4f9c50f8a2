"""Tests and intervals of spread, with scipy and brute force as oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from analysis_material import BAD, OTHERS, TASKS, generator, paired_tasks
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from softprompts.errors import DataError
from softprompts.lab.analysis.spreads import (
    brown_forsythe,
    std_ratio,
    std_ratio_interval,
)


def test_ratio_is_that_of_numpy():
    found = std_ratio(TASKS[:1], OTHERS[:1])
    assert found == pytest.approx(np.std(TASKS[0], ddof=1) / np.std(OTHERS[0], ddof=1))
    roots = [np.mean([np.var(task, ddof=1) for task in tasks]) ** 0.5 for tasks in (TASKS, OTHERS)]
    assert std_ratio(TASKS, OTHERS) == pytest.approx(roots[0] / roots[1])


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_jackknife_is_that_of_every_deletion(num_tasks):
    first, second = TASKS[:num_tasks], OTHERS[:num_tasks]
    whole, variance = 2 * math.log(std_ratio(first, second)), 0.0
    for task, scores in enumerate(first):
        left = []
        for seed in range(len(scores)):
            cut = [
                [np.delete(v, seed) if i == task else v for i, v in enumerate(values)]
                for values in (first, second)
            ]
            left.append(2 * math.log(std_ratio(*cut)))
        variance += (len(left) - 1) ** 2 / len(left) * np.var(left, ddof=1)
    df = sum(len(scores) - 1 for scores in first)
    half = stats.t.ppf(0.975, df) * variance**0.5
    expected = (math.exp((whole - half) / 2), math.exp((whole + half) / 2))
    assert std_ratio_interval(first, second) == pytest.approx(expected)


def test_one_task_is_levenes_test():
    expected = stats.levene(TASKS[0], OTHERS[0], center="median").pvalue
    assert brown_forsythe(TASKS[:1], OTHERS[:1]) == pytest.approx(expected)


def test_a_p_value_of_one_task_knows_no_order_however_small():
    x = [0.5, 0.5, *(0.5 + 1e-9 * np.random.default_rng(0).random(8))]
    y = [0.0, 1.0] * 5
    expected = stats.levene(x, y, center="median").pvalue
    assert 0 < expected < 1e-150
    for pair in ((x, y), (y, x)):
        assert brown_forsythe(*([v] for v in pair)) == pytest.approx(expected, rel=1e-9, abs=0)


def test_tails_too_small_for_a_number_still_cancel():
    x = [*[0.5] * 100, *(0.5 + 1e-9 * np.random.default_rng(0).random(100))]
    y = [0.0, 1.0] * 100
    assert stats.levene(x, y, center="median").pvalue == 0
    for pair in ((x, y), (y, x)):
        assert brown_forsythe(*([v] for v in pair)) < 1e-300
    assert brown_forsythe([x, y], [y, x]) == pytest.approx(1)


def test_several_tasks_are_stouffers_sum():
    above = []
    for x, y in zip(TASKS, OTHERS, strict=True):
        distances = [np.abs(np.array(v) - np.median(v)) for v in (x, y)]
        above.append(stats.ttest_ind(*distances, alternative="greater").pvalue)
    one_sided = stats.combine_pvalues(above, method="stouffer").pvalue
    expected = 2 * min(one_sided, 1 - one_sided)
    assert brown_forsythe(TASKS, OTHERS) == pytest.approx(expected)


def test_tasks_on_opposite_sides_cancel():
    wide, narrow = [0.1, 0.5, 0.6, 0.9, 0.3], [0.5, 0.51, 0.49, 0.52, 0.5]
    same = brown_forsythe([wide, wide], [narrow, narrow])
    assert same < brown_forsythe([wide], [narrow]) < 0.1
    assert brown_forsythe([wide, narrow], [narrow, wide]) == pytest.approx(1)


def test_without_spread_there_is_no_ratio():
    flat, wide = [[0.6] * 5], TASKS[:1]
    assert std_ratio(wide, flat) is None
    assert std_ratio(flat, flat) is None
    assert std_ratio(flat, wide) == pytest.approx(0)
    for pair in ((wide, flat), (flat, wide), (flat, flat)):
        assert std_ratio_interval(*pair) is None
    assert brown_forsythe(flat, flat) is None
    assert brown_forsythe(wide, flat) == pytest.approx(
        stats.levene(*wide, *flat, center="median").pvalue
    )


def test_a_spread_that_hangs_on_one_seed_has_no_interval():
    single = [[0.6, 0.6, 0.6, 0.6, 0.7]]
    assert std_ratio_interval(single, TASKS[:1]) is None
    assert std_ratio(single, TASKS[:1]) == pytest.approx(0.0447 / 0.0577, rel=0.01)


def test_distances_that_are_all_equal_tell_nothing():
    """Two seeds always lie equally far from their median; so may four."""
    assert brown_forsythe([[0.1, 0.9]], [[0.5, 0.51]]) is None
    assert brown_forsythe([[0.1, 0.1, 0.9, 0.9]], [[0.5] * 4]) is None


def test_a_task_that_cannot_tell_is_left_out_of_the_sum():
    flat = [0.5] * 5
    found = brown_forsythe([TASKS[0], flat], [OTHERS[0], flat])
    assert found == pytest.approx(brown_forsythe(TASKS[:1], OTHERS[:1]))


def test_two_seeds_have_a_ratio_and_no_interval():
    first, second = [[0.5, 0.6]], [[0.5, 0.7]]
    assert std_ratio(first, second) == pytest.approx(0.5)
    assert std_ratio_interval(first, second) is None
    assert std_ratio([[0.5]], [[0.6]]) is None


@given(paired_tasks(least=3), st.floats(-2, 2), st.floats(0.25, 4), st.integers(0, 9))
def test_spread_knows_shift_scale_and_order(tasks, shift, scale, seed):
    first, second = tasks
    ratio, p = std_ratio(first, second), brown_forsythe(first, second)
    interval = std_ratio_interval(first, second)
    orders = [generator(seed).permutation(len(task)) for task in first]
    moved = [
        [factor * np.array(task)[order] + shift for task, order in zip(values, orders, strict=True)]
        for factor, values in ((scale, first), (1, second))
    ]
    if ratio is None:
        assert std_ratio(*moved) is None
    else:
        assert std_ratio(*moved) == pytest.approx(scale * ratio, abs=1e-6)
    if interval is None:
        assert std_ratio_interval(*moved) is None
    else:
        low, high = interval
        assert low <= ratio <= high
        assert std_ratio_interval(*moved) == pytest.approx((scale * low, scale * high), rel=1e-5)
    turned = brown_forsythe(second, first)
    assert (p is None) == (turned is None)
    if p is not None:
        assert 0 <= p <= 1
        assert turned == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize(("tasks", "text"), BAD)
def test_scores_that_are_none_are_refused(tasks, text):
    for function in (std_ratio, std_ratio_interval, brown_forsythe):
        with pytest.raises(DataError, match=text):
            function(tasks, tasks)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(DataError, match=r"same seeds, but are \[5, 4, 6\] and \[5\] per task"):
        brown_forsythe(TASKS, OTHERS[:1])
