"""Samplings and mixing: how often each task is drawn, and which of its rows come next."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.training.mixing import Mixing, epoch_order, update_indices
from softprompts.training.registry import SAMPLINGS

SIZES = st.lists(st.integers(1, 10_000), min_size=1, max_size=6)


def shares(kind, sizes, **options):
    return SAMPLINGS.load(kind)(sizes, **options)


@given(SIZES)
def test_shares_add_up_to_one_and_follow_sizes(sizes):
    for kind in SAMPLINGS.names():
        found = shares(kind, sizes)
        assert len(found) == len(sizes)
        assert sum(found) == pytest.approx(1)
        for one, size in zip(found, sizes, strict=True):
            if size == max(sizes):
                assert one == max(found)


def test_shares_are_those_of_their_formulas():
    assert shares("size", [60, 30, 10]) == pytest.approx([0.6, 0.3, 0.1])
    assert shares("size", [60, 30, 10], limit=30) == pytest.approx([3 / 7, 3 / 7, 1 / 7])
    assert shares("temperature", [81, 9, 1]) == pytest.approx([9 / 13, 3 / 13, 1 / 13])
    assert shares("temperature", [81, 16], temperature=4.0) == pytest.approx([0.6, 0.4])
    assert shares("temperature", [81, 9], limit=9) == pytest.approx([0.5, 0.5])
    assert shares("uniform", [5, 500]) == [0.5, 0.5]


@given(SIZES)
def test_a_temperature_of_one_is_by_size_and_a_high_one_even(sizes):
    assert shares("temperature", sizes, temperature=1.0) == pytest.approx(shares("size", sizes))
    high = shares("temperature", sizes, temperature=1e9)
    assert high == pytest.approx(shares("uniform", sizes), abs=1e-6)


def test_tasks_are_drawn_by_their_shares():
    mixing = Mixing({"a": 40, "b": 20, "c": 7}, [0.6, 0.3, 0.1], 16, seed=3)
    counts = Counter()
    for step in range(400):
        update = mixing.update(step)
        assert sorted(place for one in update for place in one.places) == list(range(16))
        counts.update({one.task: len(one.indices) for one in update})
    total = sum(counts.values())
    assert total == 6400
    for name, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert counts[name] / total == pytest.approx(share, abs=0.03)


def test_each_task_goes_through_its_own_epochs():
    mixing = Mixing({"a": 6, "b": 4}, [0.5, 0.5], 5, seed=1)
    taken = {"a": [], "b": []}
    for step in range(20):
        for one in mixing.update(step):
            taken[one.task] += one.indices
    for name, size, path in (("a", 6, ()), ("b", 4, ("task", "b"))):
        expected = [row for epoch in range(30) for row in epoch_order(size, 1, epoch, *path)]
        assert len(taken[name]) > 2 * size
        assert taken[name] == expected[: len(taken[name])]
    assert taken["a"][:6] != taken["a"][6:12]


@given(st.integers(0, 60), st.integers(0, 5))
def test_an_update_follows_from_seed_and_step_alone(step, seed):
    def fresh():
        return Mixing({"a": 9, "b": 5}, [0.7, 0.3], 4, seed)

    walked = fresh()
    for earlier in range(step):
        walked.update(earlier)
    assert walked.update(step) == fresh().update(step)
    assert walked.update(0) == fresh().update(0)


def test_seeds_differ():
    firsts = {
        tuple(Mixing({"a": 9, "b": 9}, [0.5, 0.5], 8, seed).update(0)[0].places)
        for seed in range(8)
    }
    assert len(firsts) > 4


def test_one_task_is_read_as_without_a_mixture():
    mixing = Mixing({"only": 7}, [1.0], 3, seed=5)
    for step in range(9):
        (one,) = mixing.update(step)
        assert list(one.indices) == update_indices(7, 3, 5, step)
        assert one.places == tuple(range(len(one.indices)))
