"""Intervals of a mean, with scipy and brute force as oracles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from analysis_material import BAD, TASKS, generator, is_quantile, paired_tasks
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from softprompts.errors import DataError, UnknownNameError
from softprompts.lab.analysis.intervals import METHODS, mean_interval, standard_error

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


def test_percentile_is_that_of_all_resamples():
    scores = TASKS[0]
    means = [np.mean(drawn) for drawn in itertools.product(scores, repeat=len(scores))]
    expected = np.quantile(means, [0.025, 0.975])
    found = mean_interval([scores], "percentile", generator=generator(), num_resamples=MANY)
    assert found == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("num_tasks", [1, 3])
def test_bootstraps_are_those_of_scipy(method, num_tasks):
    def mean(*tasks, axis):
        return np.mean([task.mean(axis=axis) for task in tasks], axis=0)

    tasks = [[*task, 0.2] for task in TASKS[:num_tasks]]  # skewed, so that `bca` has work to do
    expected = stats.bootstrap(
        [np.array(task) for task in tasks],
        mean,
        vectorized=True,
        method=method,
        n_resamples=MANY,
        random_state=generator(1),
    ).confidence_interval
    found = mean_interval(tasks, method, generator=generator(), num_resamples=MANY)
    assert found == pytest.approx((expected.low, expected.high), abs=0.004)


def test_bca_takes_the_quantiles_of_its_formula():
    scores = np.array([0.7, 0.71, 0.3, 0.69, 0.68, 0.66])  # most resampled means are above theirs
    means = np.array(list(itertools.product(scores, repeat=6))).mean(axis=1)
    shift = stats.norm.ppf(np.mean(means < scores.mean() - 1e-9))
    left = np.array([np.delete(scores, seed).mean() for seed in range(6)])
    pulls = left.mean() - left
    tails = shift + stats.norm.ppf([0.025, 0.975])
    pull = (pulls**3).sum() / 6 / (pulls**2).sum() ** 1.5
    shares = stats.norm.cdf(shift + tails / (1 - pull * tails))
    low, high = mean_interval([scores], "bca", generator=generator(), num_resamples=MANY)
    assert is_quantile(low, means, shares[0], 0.001)
    assert is_quantile(high, means, shares[1], 0.004)


def test_bca_differs_from_percentile_on_skewed_scores():
    scores = [[0.7, 0.71, 0.72, 0.69, 0.3]]
    plain, shifted = (
        mean_interval(scores, method, generator=generator()) for method in ("percentile", "bca")
    )
    assert shifted[0] < plain[0] - 0.02


def test_studentized_is_that_of_all_resamples():
    scores = np.array(TASKS[0])
    size = len(scores)
    drawn = np.array(list(itertools.product(scores, repeat=size)))
    drawn = drawn[np.ptp(drawn, axis=1) > 0]
    ratios = (drawn.mean(axis=1) - scores.mean()) / (drawn.std(axis=1, ddof=1) / size**0.5)
    low, high = np.quantile(ratios, [0.025, 0.975])
    error = scores.std(ddof=1) / size**0.5
    found = mean_interval([scores], "studentized", generator=generator(), num_resamples=MANY)
    expected = (scores.mean() - high * error, scores.mean() - low * error)
    assert found == pytest.approx(expected, abs=0.004)


def test_studentized_cannot_say_where_its_ratios_do_not_differ():
    """Both of two seeds drawn, in either order, give the mean itself; one drawn twice no error."""
    for scores in ([0.0, 1.0], [0.3, 0.1], [1e6, 1e6 + 1]):
        assert mean_interval([scores], "studentized", generator=generator()) is None
    found = mean_interval([[0.0, 0.4, 1.0]], "studentized", generator=generator())
    assert found[0] < 1.4 / 3 < found[1]
    found = mean_interval([[0.0, 1.0]] * 2, "studentized", generator=generator())
    assert found[0] < 1 / 2 < found[1]


def test_studentized_cannot_say_without_a_resample_that_spreads():
    draws = [
        mean_interval([[0.0, 0.0, 1.0]], "studentized", generator=generator(s), num_resamples=1)
        for s in range(5)
    ]
    assert draws == [None] * 5


def test_standard_error_of_one_task_has_its_degrees_of_freedom():
    error, df = standard_error([np.array(TASKS[0])])
    assert (error, df) == pytest.approx((stats.sem(TASKS[0]), 4))


@pytest.mark.parametrize("method", METHODS)
def test_equal_scores_and_single_seeds(method):
    assert mean_interval([[0.6] * 5], method, generator=generator()) == pytest.approx((0.6, 0.6))
    assert mean_interval([[0.6, 0.7], [0.6]], method, generator=generator()) is None


@pytest.mark.parametrize("method", METHODS)
@given(paired_tasks(least=2), st.floats(-2, 2), st.floats(0.25, 4), st.integers(0, 9))
def test_intervals_move_with_scores_and_know_no_order(method, tasks, shift, scale, seed):
    first, _ = tasks

    def made(values):
        return mean_interval(values, method, generator=generator(), num_resamples=199)

    found, changed = made(first), made([[scale * x + shift for x in task] for task in first])
    if found is None:
        assert (method, changed) == ("studentized", None)
        return
    low, high = found
    assert low <= high
    assert changed == pytest.approx((scale * low + shift, scale * high + shift), abs=1e-6)
    if method == "t":
        assert low - 1e-9 <= np.mean([np.mean(task) for task in first]) <= high + 1e-9
        shuffled = [generator(seed).permutation(task) for task in first]
        assert made(shuffled) == pytest.approx((low, high), abs=1e-12)


def test_the_same_generator_draws_the_same():
    one, again, other = (
        mean_interval(TASKS, "percentile", generator=generator(seed), num_resamples=99)
        for seed in (0, 0, 1)
    )
    assert one == again != other


@pytest.mark.parametrize(("tasks", "text"), BAD)
def test_scores_that_are_none_are_refused(tasks, text):
    with pytest.raises(DataError, match=text):
        mean_interval(tasks)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(UnknownNameError, match=r"but is 'percentil'\. Did you mean 'percentile'"):
        mean_interval(TASKS, "percentil")
    with pytest.raises(DataError, match="interval 'bca' must have a generator, but it is None"):
        mean_interval(TASKS, "bca")
    with pytest.raises(DataError, match="level must be between 0 and 1, but is 95"):
        mean_interval(TASKS, level=95)
