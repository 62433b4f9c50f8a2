"""From `summary.json` to tables."""

from __future__ import annotations

import json

import numpy as np
import pytest

from softprompts.lab.analysis.comparisons import compare
from softprompts.lab.analysis.study_statistics import score_tables, statistics_of


def line(variant, task, scores, point=None, missing=(), num_items=56):
    return {
        "variant": variant,
        "task": task,
        "point": {"task.name": task} if point is None else point,
        "seeds": list(range(len(scores))),
        "scores": scores,
        "missing": [{"seed": seed, "reason": reason} for seed, reason in missing],
        "num_items": num_items,
    }


LINES = [
    line("plain", "cb", [0.5, 0.6, 0.55]),
    line("plain", "rte", [0.7, 0.6, 0.75], num_items=277),
    line("new", "cb", [0.6, 0.65], missing=[(2, "failed")]),
    line("new", "rte", [], missing=[(0, "unfinished")], num_items=None),
]


def test_tasks_of_the_grid_are_one_table():
    ((point, table),) = score_tables(LINES)
    assert point == {}
    assert (table.variants, table.tasks) == (("plain", "new"), ("cb", "rte"))
    assert table.scores("new", "cb") == {0: 0.6, 1: 0.65}
    assert table.missing("new", "cb") == {2: "failed"}
    assert table.num_items == {"cb": 56, "rte": 277}


def test_other_fields_of_the_grid_are_tables_of_their_own():
    def point(length, **task):
        return {"prompt.length": length, "task": {"data_dir": "x", **task}}

    lines = [
        line("plain", task, [0.5], point(length, name=task, shots=4))
        for length in (5, 10)
        for task in ("cb", "rte")
    ]
    found = score_tables(lines)
    shots = {"task": {"shots": 4}}
    assert [p for p, _ in found] == [{"prompt.length": n, **shots} for n in (5, 10)]
    assert [t.tasks for _, t in found] == [("cb", "rte")] * 2
    ((plain, _),) = score_tables([line("plain", "cb", [0.5], {"task": "cb"})])
    assert plain == {}


def test_items_that_differ_are_not_known():
    ((_, table),) = score_tables([LINES[0], line("new", "cb", [0.5], num_items=57)])
    assert table.num_items == {}
    ((_, mixture),) = score_tables([{**line("plain", "cb + rte", [0.5]), "tasks": {}}])
    assert mixture.num_items == {}
    assert mixture.tasks == ("cb + rte",)


def test_statistics_are_those_of_the_table_and_the_same_each_time():
    found = statistics_of(LINES, "plain")
    assert found.keys() == {"baseline", "comparisons", "averages"}
    assert found == statistics_of(LINES, "plain")
    assert json.loads(json.dumps(found, allow_nan=False))["baseline"] == "plain"
    assert [c["tasks"] for c in found["comparisons"]] == [("cb",), ("rte",), ("cb",)]
    ((_, table),) = score_tables(LINES)
    expected = compare(table, "plain", np.random.default_rng(0))
    assert [c["p"] for c in found["comparisons"]] == [c.p for c in expected]
    averages = {a["variant"]: a for a in found["averages"]}
    assert averages["plain"]["over_seeds"]["scores"] == pytest.approx((0.6, 0.6, 0.65))
    assert averages["new"]["over_seeds"]["mean"] is None
    assert averages["new"]["left_out"] == (
        "new on cb: failed seed 2",
        "new on rte: unfinished seed 0",
    )


def test_a_point_without_the_baseline_has_no_comparison():
    found = statistics_of(LINES[2:], "plain")
    assert found["comparisons"] == []
    assert statistics_of(LINES[:1], "plain")["averages"] == []


def test_answers_go_with_their_seeds():
    own = line("plain", "cb", [0.5, 0.75], num_items=4) | {"answers": ["1010", "1110"]}
    ((_, table),) = score_tables([own, own | {"variant": "new", "answers": ["0010", "1011"]}])
    gaps = table.answer_gaps(("plain", "new"), "cb", [0, 1])
    assert gaps.tolist() == [[1, 0, 0, 0], [0, 1, 0, -1]]
