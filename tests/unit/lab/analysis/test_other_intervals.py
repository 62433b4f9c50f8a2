"""Intervals that the page on statistics compares, with scipy and brute force as oracles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from analysis_material import OTHERS, TASKS, generator, is_quantile, paired_tasks
from hypothesis import given
from hypothesis import strategies as st
from other_intervals import MEAN_METHODS, improvement_by, mean_by, ratio_by
from scipy import stats

from softprompts.lab.analysis.improvement import probability_of_improvement
from softprompts.lab.analysis.spreads import std_ratio_interval

MANY = 40_000


def test_percentile_is_that_of_all_resamples():
    scores = TASKS[0]
    means = [np.mean(drawn) for drawn in itertools.product(scores, repeat=len(scores))]
    expected = np.quantile(means, [0.025, 0.975])
    found = mean_by("percentile", [scores], generator(), MANY)
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
    found = mean_by(method, tasks, generator(), MANY)
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
    low, high = mean_by("bca", [scores], generator(), MANY)
    assert is_quantile(low, means, shares[0], 0.001)
    assert is_quantile(high, means, shares[1], 0.004)


def test_bca_differs_from_percentile_on_skewed_scores():
    scores = [[0.7, 0.71, 0.72, 0.69, 0.3]]
    plain, shifted = (mean_by(method, scores, generator()) for method in ("percentile", "bca"))
    assert shifted[0] < plain[0] - 0.02


def test_studentized_is_that_of_all_resamples():
    scores = np.array(TASKS[0])
    size = len(scores)
    drawn = np.array(list(itertools.product(scores, repeat=size)))
    drawn = drawn[np.ptp(drawn, axis=1) > 0]
    ratios = (drawn.mean(axis=1) - scores.mean()) / (drawn.std(axis=1, ddof=1) / size**0.5)
    low, high = np.quantile(ratios, [0.025, 0.975])
    error = scores.std(ddof=1) / size**0.5
    found = mean_by("studentized", [scores], generator(), MANY)
    expected = (scores.mean() - high * error, scores.mean() - low * error)
    assert found == pytest.approx(expected, abs=0.004)


def test_studentized_cannot_say_where_its_ratios_do_not_differ():
    """Both of two seeds drawn, in either order, give the mean itself; one drawn twice no error."""
    for scores in ([0.0, 1.0], [0.3, 0.1], [1e6, 1e6 + 1]):
        assert mean_by("studentized", [scores], generator()) is None
    found = mean_by("studentized", [[0.0, 0.4, 1.0]], generator())
    assert found[0] < 1.4 / 3 < found[1]
    found = mean_by("studentized", [[0.0, 1.0]] * 2, generator())
    assert found[0] < 1 / 2 < found[1]


def test_studentized_cannot_say_without_a_resample_that_spreads():
    draws = [mean_by("studentized", [[0.0, 0.0, 1.0]], generator(s), 1) for s in range(5)]
    assert draws == [None] * 5


def test_the_same_generator_draws_the_same():
    one, again, other = (mean_by("percentile", TASKS, generator(seed), 99) for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize("method", MEAN_METHODS)
def test_equal_scores_and_single_seeds(method):
    assert mean_by(method, [[0.6] * 5], generator()) == pytest.approx((0.6, 0.6))
    assert mean_by(method, [[0.6, 0.7], [0.6]], generator()) is None


@pytest.mark.parametrize("method", MEAN_METHODS)
@given(paired_tasks(least=2), st.floats(-2, 2), st.floats(0.25, 4), st.integers(0, 9))
def test_intervals_move_with_scores_and_know_no_order(method, tasks, shift, scale, seed):
    first, _ = tasks

    def made(values):
        return mean_by(method, values, generator(), 199)

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


def test_f_interval_is_where_the_f_test_turns():
    low, high = ratio_by("f", TASKS[:1], OTHERS[:1], generator())
    variances = [np.var(tasks[0], ddof=1) for tasks in (TASKS, OTHERS)]
    for end, tail in ((low, stats.f.sf), (high, stats.f.cdf)):
        assert tail(variances[0] / variances[1] / end**2, 4, 4) == pytest.approx(0.025)


def test_ratio_bootstrap_is_that_of_all_resamples_of_shared_seeds():
    x, y = np.array(TASKS[0]), np.array(OTHERS[0])
    drawn = np.array(list(itertools.product(range(5), repeat=5)))
    tops, bottoms = x[drawn].std(axis=1), y[drawn].std(axis=1)
    kept = bottoms > 1e-9
    ratios = tops[kept] / bottoms[kept]
    low, high = ratio_by("bootstrap", [x], [y], generator(), MANY)
    assert is_quantile(low, ratios, 0.025, 0.005)
    assert is_quantile(high, ratios, 0.975, 0.005)


def test_bootstrap_keeps_pairs():
    """With scores that are twice the other's, every resample has the same ratio."""
    twice = [[2 * x for x in task] for task in TASKS]
    found = ratio_by("bootstrap", twice, TASKS, generator())
    assert found == pytest.approx((2, 2))
    assert std_ratio_interval(twice, TASKS) == pytest.approx((2, 2))


def test_improvement_is_that_of_all_resamples_of_shared_seeds():
    x, y = np.array(TASKS[0][:4]), np.array(OTHERS[0][:4])
    shares = [
        probability_of_improvement([x[list(d)]], [y[list(d)]])
        for d in itertools.product(range(4), repeat=4)
    ]
    low, high = improvement_by("bootstrap", [x], [y], generator())
    assert is_quantile(low, shares, 0.025)
    assert is_quantile(high, shares, 0.975)
