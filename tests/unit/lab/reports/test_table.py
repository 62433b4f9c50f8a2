"""The score table says what the summary says."""

from __future__ import annotations

from softprompts.lab.reports.table import notes, score_rows

LINE = {
    "variant": "plain",
    "task": "fewglue/cb",
    "point": {"task.name": "fewglue/cb", "prompt.length": 5},
    "seeds": [0, 1],
    "mean": 0.612,
    "std": 0.05,
    "min": 0.5,
    "max": 0.7,
    "majority": 0.36,
    "num_items": 56,
    "updates": 100,
    "seconds": 12.4,
    "num_cut": {"train": 0, "validation": 3},
    "num_diverged": 1,
    "num_failed": 0,
    "num_missing": 2,
    "errors": ["no such file"],
}
EMPTY = {
    **LINE,
    "task": "fewglue/rte",
    "point": {},
    "seeds": [],
    **dict.fromkeys(("mean", "std", "min", "max", "majority", "num_items", "updates", "num_cut")),
    "errors": [],
}
SUMMARY = {"cells": [EMPTY, LINE, {**EMPTY, "variant": "residual"}]}


def test_rows():
    rows = score_rows(SUMMARY)
    assert [row[:2] for row in rows] == [
        ("fewglue/rte", "plain"),
        ("fewglue/rte", "residual"),
        ("fewglue/cb", "plain prompt.length=5"),
    ]
    assert rows[2][2:] == ("61.2 ± 5.0", "50.0", "70.0", "36.0", "56", "2", "100", "12")
    assert rows[0][2:7] == ("– ± –", "–", "–", "–", "–")


def test_notes_hide_nothing():
    said = "\n".join(notes({"cells": [LINE]}))
    for part in ("1 diverged", "2 not run yet", "no such file", "3 in validation"):
        assert part in said
    assert "in train" not in said
