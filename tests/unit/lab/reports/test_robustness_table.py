"""The table of swept fields says what the summary says."""

from __future__ import annotations

import pytest

from softprompts.lab.reports.robustness import HEADINGS, robustness_rows, start_of_axis

CURVE = {
    "field": "training.learning_rate",
    "task": "cb",
    "variant": "plain",
    "point": {"prompt.length": 5},
    "rows": "held-out",
    "values": [0.0001, 0.01, 0.1],
    "means": [0.5, 0.612, 0.61],
    "is_logarithmic": True,
    "best_value": 0.01,
    "plateau": [0.01, 0.1],
    "plateau_width": 1.0,
    "default_value": 0.0001,
    "score_at_default": 0.5,
    "is_default_on_plateau": False,
}
EMPTY = {
    **CURVE,
    "means": [None] * 3,
    "is_logarithmic": False,
    **dict.fromkeys(("best_value", "plateau", "plateau_width", "default_value")),
    "score_at_default": None,
    "is_default_on_plateau": None,
}
LEVELS = {
    "field": "prompt.initializer",
    "task": "cb",
    "variant": "plain",
    "point": {},
    "rows": "reported",
    "names": ["vocabulary", "normal", "uniform"],
    "means": [0.5, 0.6, 0.599],
    "best_name": "normal",
    "near_best": ["normal", "uniform"],
    "default_name": "vocabulary",
    "score_at_default": 0.5,
}


def test_rows():
    units = {**CURVE, "is_logarithmic": False, "plateau_width": 20, "is_default_on_plateau": True}
    found = robustness_rows({"robustness": {"curves": [CURVE, EMPTY, units], "levels": [LEVELS]}})
    about = ("cb", "training.learning_rate", "plain prompt.length=5", "held-out")
    assert found[0] == (*about, "0.01 (61.2)", "0.01 to 0.1", "1.0 decades", "0.0001 (50.0)*")
    assert found[1] == (*about, "–", "–", "–", "–")
    assert found[2][6:] == ("20", "0.0001 (50.0)")
    assert found[3] == (
        "cb",
        "prompt.initializer",
        "plain",
        "reported",
        "normal (60.0)",
        "normal, uniform",
        "2 of 3",
        "vocabulary (50.0)*",
    )
    assert {len(row) for row in found} == {len(HEADINGS)}


def test_levels_without_scores_or_a_swept_default():
    nothing = {**LEVELS, "means": [None] * 3, "best_name": None, "near_best": []}
    nothing |= {"default_name": "text", "score_at_default": None}
    (row,) = robustness_rows({"robustness": {"curves": [], "levels": [nothing]}})
    assert row[4:] == ("–", "–", "0 of 3", "text")


def test_a_study_without_a_sweep_has_no_rows():
    assert robustness_rows({"robustness": {"curves": [], "levels": []}}) == []
    assert robustness_rows({"cells": []}) == []  # a summary of an earlier version


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ((0.001, 0.01, 0.1), 0.001),
        ((0, 0.1, 0.3, 1, 3, 10), 0.1 / 3),
        ((0, 10, 20, 30), None),
        ((10, 20, 30), None),
        ((0, 1), None),
    ],
)
def test_a_zero_stands_one_step_below_the_least_of_a_logarithmic_axis(values, start):
    found = start_of_axis(values)
    assert found == (start if start is None else pytest.approx(start))
