"""Sign flips against every arrangement, gone through by hand and by scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from analysis_material import OTHERS, TASKS, differences, generator, paired_tasks
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from softprompts.errors import DataError
from softprompts.lab.analysis.permutations import EXACT_UP_TO, sign_flip_test, smallest_p


def by_hand(tasks):
    """Go through all flips of all tasks."""
    weights = np.concatenate([np.array(task) / len(task) for task in tasks])
    signs = np.array(list(itertools.product([1, -1], repeat=len(weights))))
    return float(np.mean(np.abs(signs @ weights) >= abs(weights.sum()) - 1e-12))


@given(paired_tasks(most=3))
def test_few_pairs_go_through_all_flips(tasks):
    gaps = differences(*tasks)
    found = sign_flip_test(gaps, generator())
    assert found.is_exact
    assert found.p == pytest.approx(by_hand(gaps))
    assert found.smallest_p <= found.p <= 1
    assert found.num_pairs == sum(map(len, gaps))


@pytest.mark.parametrize("size", [5, 10])
def test_one_task_is_scipys_permutation_test(size):
    x, y = generator(3).normal(0.3, 1, (2, size))
    expected = stats.permutation_test(
        (x, y),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip_test([x - y], generator()).p == pytest.approx(expected.pvalue)


def test_many_pairs_draw_flips():
    gaps = differences(TASKS, OTHERS)
    assert sum(map(len, gaps)) > EXACT_UP_TO
    exact = sign_flip_test(gaps, generator(), exact_up_to=20)
    drawn = sign_flip_test(gaps, generator(), num_resamples=20_000)
    assert (exact.is_exact, drawn.is_exact) == (True, False)
    assert exact.p == pytest.approx(by_hand(gaps))
    assert drawn.p == pytest.approx(exact.p, abs=4 * (exact.p / 20_000) ** 0.5)
    assert drawn == sign_flip_test(gaps, generator(), num_resamples=20_000)
    assert drawn != sign_flip_test(gaps, generator(1), num_resamples=20_000)


def test_a_drawn_p_is_never_zero():
    found = sign_flip_test([[1.0] * 30], generator(), num_resamples=99)
    assert (found.p, found.smallest_p) == (0.01, 0.01)


def test_five_seeds_cannot_give_less_than_two_of_32():
    found = sign_flip_test([[0.9, 0.8, 0.9, 0.7, 0.95]], generator())
    assert found.p == found.smallest_p == smallest_p(5) == 2 / 32
    assert smallest_p(6) < 0.05
    assert smallest_p(1) == smallest_p(0) == 1


def test_no_difference_at_all():
    assert sign_flip_test([[0.0] * 6], generator()).p == 1


@given(paired_tasks(most=4), st.floats(0.01, 100), st.integers(0, 9))
def test_p_knows_no_scale_side_or_order(tasks, scale, seed):
    gaps = differences(*tasks)
    p = sign_flip_test(gaps, generator()).p
    turned = [-scale * generator(seed).permutation(task) for task in gaps]
    assert sign_flip_test(turned, generator()).p == pytest.approx(p)


def test_differences_must_be_there_and_finite():
    with pytest.raises(DataError, match="differences must be finite numbers, but have nan"):
        sign_flip_test([[0.1, float("nan")]], generator())
