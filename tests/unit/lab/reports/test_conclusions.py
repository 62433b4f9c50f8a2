"""What is printed of comparisons."""

from __future__ import annotations

from types import SimpleNamespace

from softprompts.lab.reports.findings import _on_spread, conclusions


def comparison(variant, tasks, **point):
    text = f"{variant} on {' and '.join(tasks)}"
    return {
        "variant": variant,
        "tasks": tasks,
        "point": point,
        "conclusion": f"{text}: mean",
        "conclusion_on_spread": f"{text}: spread",
    }


def test_single_tasks_are_said_where_there_is_no_mean_over_several():
    found = [
        comparison("a", ["cb"]),
        comparison("a", ["rte"]),
        comparison("a", ["cb", "rte"]),
        comparison("b", ["cb"], **{"prompt.length": 5}),
    ]
    assert conclusions({"comparisons": found}) == [
        "a on cb and rte: mean",
        "a on cb and rte: spread",
        "prompt.length=5, b on cb: mean",
        "prompt.length=5, b on cb: spread",
    ]
    assert conclusions({"comparisons": []}) == []


def test_a_mean_over_tasks_that_is_so_far_of_one_is_said_once():
    found = [comparison("a", ["cb"]), comparison("a", ["cb"])]
    assert conclusions({"comparisons": found}) == ["a on cb: mean", "a on cb: spread"]


def test_nothing_is_said_of_spread_beside_scores_that_are_all_equal():
    beside = {"std_ratio": None, "p_spread_adjusted": 0.001}
    assert _on_spread(SimpleNamespace(baseline="zero-shot"), [beside]) == []
