"""Intervals of a mean, with scipy and brute force as oracles."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_material import BAD, TASKS
from scipy import stats

from softprompts.errors import DataError
from softprompts.lab.analysis.intervals import mean_interval, standard_error

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
