"""The table of scores: nothing is lost, nothing is made up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import DataError
from softprompts.lab.analysis.scores import (
    BENCHMARKS,
    ScoreTable,
    SeedScore,
    average_over_tasks,
    describe_missing,
)
from softprompts.tasks.registry import TASKS

RUNS = [
    SeedScore("a", "cb", 0, 0.5),
    SeedScore("a", "cb", 2, 0.7),
    SeedScore("a", "rte", 0, 0.6),
    SeedScore("a", "rte", 1, 0.4),
    SeedScore("a", "rte", 2, None, "diverged"),
    SeedScore("b", "rte", 1, 0.8),
    SeedScore("b", "rte", 0, None, "failed"),
    SeedScore("b", "rte", 2, None, "failed"),
]


def test_runs_are_found_by_seed():
    table = ScoreTable(RUNS, {"cb": 56})
    assert (table.variants, table.tasks, table.seeds) == (("a", "b"), ("cb", "rte"), (0, 1, 2))
    assert table.scores("a", "cb") == {0: 0.5, 2: 0.7}
    assert table.missing("a", "rte") == {2: "diverged"}
    assert (table.tasks_of("a"), table.tasks_of("b")) == (("cb", "rte"), ("rte",))
    assert describe_missing(table, "b", "rte") == "b on rte: failed seeds 0, 2"
    assert describe_missing(table, "a", "rte") == "a on rte: diverged seed 2"
    assert describe_missing(table, "a", "cb") == ""
    assert table.num_items == {"cb": 56}


@given(st.permutations(RUNS))
def test_the_order_of_runs_does_not_change_what_is_found(runs):
    one, other = ScoreTable(RUNS), ScoreTable(runs)
    for variant in one.variants:
        for task in one.tasks:
            assert list(other.scores(variant, task).items()) == list(
                one.scores(variant, task).items()
            )
            assert other.missing(variant, task) == one.missing(variant, task)


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (RUNS[0], "a on cb, seed 0: run must come once, but comes again"),
        (SeedScore("a", "cb", 5, math.nan), "a on cb, seed 5: score must be finite .* have nan"),
        (SeedScore("a", "cb", 5, None), "seed 5: .* has score None and reason ''"),
        (SeedScore("a", "cb", 5, 0.5, "diverged"), "has score 0.5 and reason 'diverged'"),
    ],
)
def test_wrong_runs_are_refused(run, text):
    with pytest.raises(DataError, match=text):
        ScoreTable([*RUNS, run])


def test_an_average_needs_every_task():
    found = average_over_tasks(ScoreTable(RUNS), "a")
    assert (found.tasks, found.seeds) == (("cb", "rte"), (0,))
    assert found.over_seeds.scores == pytest.approx((0.55,))
    assert found.left_out == ("a on rte: diverged seed 2",)
    assert found.benchmark is None
    alone = average_over_tasks(ScoreTable(RUNS), "b")
    assert (alone.tasks, alone.over_seeds.scores) == (("rte",), (0.8,))
    with pytest.raises(DataError, match="variant must be one of a, b, but is 'c'"):
        average_over_tasks(ScoreTable(RUNS), "c")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_all_of_its_tasks(name):
    """The average is the mean over tasks, and not over tasks and metrics."""
    tasks = sorted(BENCHMARKS[name])
    assert len(tasks) == 8
    assert set(tasks) <= set(TASKS.names())
    runs = [SeedScore("a", task, 0, place / 10) for place, task in enumerate(tasks)]
    whole = average_over_tasks(ScoreTable(runs), "a")
    assert (whole.benchmark, whole.over_seeds.mean) == (name, pytest.approx(0.35))
    assert average_over_tasks(ScoreTable(runs[:7]), "a").benchmark is None
