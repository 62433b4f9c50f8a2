"""How often one run beats another, with scipy's Mann–Whitney statistic as oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from analysis_material import BAD, OTHERS, TASKS, paired_tasks
from hypothesis import given
from scipy import stats

from softprompts.errors import DataError
from softprompts.lab.analysis.improvement import improvement_interval, probability_of_improvement


@given(paired_tasks())
def test_probability_is_mann_whitneys(tasks):
    shares = [
        stats.mannwhitneyu(x, y, method="asymptotic").statistic / len(x) ** 2
        for x, y in zip(*tasks, strict=True)
        if np.ptp([*x, *y])
    ]
    shares += [0.5] * (len(tasks[0]) - len(shares))
    assert probability_of_improvement(*tasks) == pytest.approx(np.mean(shares))
    assert probability_of_improvement(*tasks[::-1]) == pytest.approx(1 - np.mean(shares))


@given(paired_tasks())
def test_the_score_interval_holds_what_was_seen_and_mirrors(tasks):
    seen = probability_of_improvement(*tasks)
    low, high = improvement_interval(*tasks)
    assert 0 <= low <= seen + 1e-9
    assert seen - 1e-9 <= high <= 1
    mirrored = improvement_interval(*tasks[::-1])
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_ends_of_the_score_interval_solve_its_equation():
    size, z = 5, stats.norm.ppf(0.975)
    x, y = TASKS[0], OTHERS[0]
    seen = probability_of_improvement([x], [y])
    for end in improvement_interval([x], [y]):
        parts = (1 - end) / (2 - end) + end / (1 + end)
        variance = end * (1 - end) * (1 + (size - 1) * parts) / size**2
        assert abs(end - seen) == pytest.approx(z * math.sqrt(variance), abs=1e-9)


def test_several_tasks_add_distances_in_squares():
    parts = [
        (probability_of_improvement([x], [y]), *improvement_interval([x], [y]))
        for x, y in zip(TASKS, OTHERS, strict=True)
    ]
    mean = np.mean([seen for seen, _, _ in parts])
    low = mean - math.sqrt(sum((seen - low) ** 2 for seen, low, _ in parts)) / 3
    high = mean + math.sqrt(sum((seen - high) ** 2 for seen, _, high in parts)) / 3
    assert improvement_interval(TASKS, OTHERS) == pytest.approx((low, min(1, high)))


def test_winning_every_pair_is_not_certainty():
    better, worse = [[0.9, 0.8, 0.85, 0.95, 0.99]], [[0.5, 0.6, 0.55, 0.7, 0.65]]
    low, high = improvement_interval(better, worse)
    assert high == 1
    assert 0.5 < low < 0.8


@pytest.mark.parametrize(("tasks", "text"), BAD)
def test_scores_that_are_none_are_refused(tasks, text):
    for function in (probability_of_improvement, improvement_interval):
        with pytest.raises(DataError, match=text):
            function(tasks, tasks)
