"""Intervals of a mean, with scipy and brute force as oracles."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_material import BAD, TASKS
from scipy import optimize, stats

from softprompts.errors import DataError
from softprompts.lab.analysis.statistics import (
    looks_skewed,
    mean_interval,
    skewed_interval,
    skewness,
    standard_error,
)

MANY = 40_000


def test_t_is_that_of_scipy():
    expected = stats.ttest_1samp(TASKS[0], 0).confidence_interval(0.9)
    found = mean_interval(TASKS[:1], level=0.9)
    assert found == pytest.approx((expected.low, expected.high))


def test_t_over_two_tasks_is_welchs():
    """The sum of two means has Welch's interval of a difference, one sample turned around."""
    turned = [-score for score in TASKS[1]]
    expected = stats.ttest_ind(TASKS[0], turned, equal_var=False).confidence_interval(0.95)
    found = mean_interval(TASKS[:2])
    assert np.multiply(found, 2) == pytest.approx((expected.low, expected.high))


def test_standard_error_of_one_task_has_its_degrees_of_freedom():
    error, df = standard_error([np.array(TASKS[0])])
    assert (error, df) == pytest.approx((stats.sem(TASKS[0]), 4))


@pytest.mark.parametrize(("tasks", "text"), BAD)
def test_scores_that_are_none_are_refused(tasks, text):
    with pytest.raises(DataError, match=text):
        mean_interval(tasks)


def test_equal_scores_and_single_seeds():
    assert mean_interval([[0.6] * 5]) == pytest.approx((0.6, 0.6))
    assert mean_interval([[0.6, 0.7], [0.6]]) is None


def test_a_level_that_is_none_is_refused():
    with pytest.raises(DataError, match="level must be between 0 and 1, but is 95"):
        mean_interval(TASKS, level=95)


ONE_BAD = [0.82, 0.8, 0.81, 0.83, 0.5]


def test_skewness_is_that_of_scipy():
    for scores in (*TASKS, ONE_BAD):
        expected = stats.skew(scores, bias=False)
        assert skewness(np.array(scores)) == pytest.approx(expected)
    assert skewness(np.array([0.5, 0.9])) == 0
    assert skewness(np.full(5, 0.1 + 0.2)) == 0


@pytest.mark.parametrize("scores", [*TASKS, ONE_BAD])
def test_ends_are_where_halls_transformation_is_students_quantile(scores):
    """Solved by brute force: the cubic is inverted by searching."""
    n, mean, error = len(scores), np.mean(scores), stats.sem(scores)
    ratio, limit = stats.skew(scores, bias=False) / np.sqrt(n), stats.t.ppf(0.95, n - 1)

    def transformed(t):
        return t + ratio * t**2 / 3 + ratio**2 * t**3 / 27 + ratio / 6

    ends = [
        mean - error * optimize.brentq(lambda t, q=q: transformed(t) - q, -100, 100)
        for q in (limit, -limit)
    ]
    assert skewed_interval(scores, level=0.9) == pytest.approx(ends)


def test_an_interval_of_symmetric_scores_is_students():
    scores = [0.5, 0.6, 0.7, 0.8, 0.9]
    assert skewed_interval(scores) == pytest.approx(mean_interval([scores]))
    for few in ([0.6, 0.7], [0.6, 0.7, 0.1]):
        assert skewed_interval(few) == mean_interval([few])
    assert skewed_interval([0.6] * 4) == pytest.approx((0.6, 0.6))
    assert skewed_interval([0.6]) is None


def test_one_bad_seed_makes_the_interval_reach_down():
    low, high = skewed_interval(ONE_BAD)
    plain = mean_interval([ONE_BAD])
    assert low < plain[0]
    assert high < plain[1]


@pytest.mark.parametrize(("size", "students"), [(5, 0.825), (10, 0.85)])
def test_it_covers_more_where_scores_are_lognormal(size, students):
    """Most seeds are good and some are bad: the case that Student's interval is short for."""
    draws = -np.exp(np.random.default_rng(size).standard_normal((1500, size)))
    truth = -np.exp(0.5)
    covered = {
        name: np.mean([low <= truth <= high for low, high in map(make, draws)])
        for name, make in (("t", lambda x: mean_interval([x])), ("hall", skewed_interval))
    }
    assert covered["t"] == pytest.approx(students, abs=0.03)
    assert covered["hall"] > covered["t"] + 0.05


def test_scores_look_skewed_where_one_seed_lies_far_off():
    assert looks_skewed(ONE_BAD)
    assert not any(map(looks_skewed, TASKS))
    assert not looks_skewed([0.9, 0.9, 0.1])
    assert not looks_skewed([])
    draws = np.random.default_rng(0).standard_normal((500, 10))
    assert np.mean([looks_skewed(x) for x in draws]) < 0.08
