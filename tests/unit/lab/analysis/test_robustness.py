"""Curves and levels: what a swept field does to a score."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from softprompts.lab.analysis.robustness import Default, is_logarithmic, plateau, robustness_of
from softprompts.lab.analysis.statistics import spread

RATE = "training.learning_rate"


def curves(lines, defaults):
    return tuple(SimpleNamespace(**one) for one in robustness_of(lines, defaults)["curves"])


def levels(lines, defaults):
    return tuple(SimpleNamespace(**one) for one in robustness_of(lines, defaults)["levels"])


def line(variant, task, point, scores, held_out=(), num_diverged=0):
    return {
        "variant": variant,
        "task": task,
        "point": point,
        **asdict(spread(scores)),
        "held_out": asdict(spread(held_out)),
        "num_diverged": num_diverged,
    }


def default(value=0.01, own=None):
    """What fields are by default: `value`; one whose point says `own` has it."""
    return lambda line, field: Default(value, is_own=line["point"][field] == own)


def sweep(means, *, field=RATE, values=(0.001, 0.01, 0.1, 1.0), diverged=None):
    counts = diverged or [0] * len(means)
    return [
        line(
            "plain", "cb", {field: value}, [] if mean is None else [mean - 0.02, mean + 0.02], (), n
        )
        for value, mean, n in zip(values, means, counts, strict=True)
    ]


def test_a_curve_is_that_of_the_scores_in_the_values_order():
    scores = {0.1: [0.5, 0.61, 0.56], 0.001: [0.4], 0.01: [0.55, 0.57]}
    lines = [line("plain", "cb", {RATE: v}, own) for v, own in scores.items()]
    (curve,) = curves(lines, default())
    assert (curve.field, curve.task, curve.variant, curve.point) == (RATE, "cb", "plain", {})
    assert (curve.rows, curve.values, curve.counts) == ("reported", (0.001, 0.01, 0.1), (1, 2, 3))
    assert curve.means == pytest.approx((0.4, 0.56, 1.67 / 3))
    half = stats.t.ppf(0.975, 2) * stats.sem(scores[0.1])
    assert (curve.lows[0], curve.highs[0]) == (None, None)
    assert (curve.lows[2], curve.highs[2]) == pytest.approx((1.67 / 3 - half, 1.67 / 3 + half))
    assert (curve.best_value, curve.plateau) == (0.01, (0.01, 0.1))
    assert curve.is_logarithmic
    assert curve.plateau_width == pytest.approx(1.0)
    assert (curve.default_value, curve.is_default_on_plateau) == (0.01, True)
    assert curve.score_at_default == pytest.approx(0.56)


def test_the_plateau_is_the_stretch_around_the_best():
    (curve,) = curves(sweep([0.70, 0.50, 0.692, 0.701]), default(0.001))
    assert (curve.best_value, curve.plateau) == (1.0, (0.1, 1.0))
    assert (curve.is_default_on_plateau, curve.score_at_default) == (False, pytest.approx(0.7))


def test_a_whole_point_below_the_best_is_within_it():
    (curve,) = curves(sweep([0.5, 0.59, 0.6, 0.589]), default())
    assert curve.plateau == (0.01, 0.1)
    assert 0.12 < 0.13 - 0.01  # in floating point
    assert plateau([0.12, 0.13, 0.12], [True] * 3) == (1, 0, 2)


def test_the_width_is_in_units_where_values_are_evenly_spaced():
    lines = sweep([0.6, 0.6, 0.595, 0.5], field="prompt.length", values=(1, 2, 3, 4))
    (curve,) = curves(lines, default(10))
    assert (curve.is_logarithmic, curve.plateau, curve.plateau_width) == (False, (1, 3), 2)
    assert (curve.default_value, curve.score_at_default) == (10, None)
    assert curve.is_default_on_plateau is False


def test_a_default_between_swept_values_lies_on_the_plateau_but_has_no_score():
    (curve,) = curves(sweep([0.5, 0.6, 0.6, 0.5]), default(0.03))
    assert (curve.is_default_on_plateau, curve.score_at_default) == (True, None)


@pytest.mark.parametrize("value", [None, "linear", True, {"kind": "linear"}])
def test_a_default_that_is_no_number_is_none(value):
    (curve,) = curves(sweep([0.5, 0.6, 0.6, 0.5]), default(value))
    found = (curve.default_value, curve.score_at_default, curve.is_default_on_plateau)
    assert found == (None, None, None)


def test_where_a_run_diverged_is_off_the_plateau():
    (curve,) = curves(sweep([0.6, 0.595, 0.7, None], diverged=[0, 0, 1, 2]), default(0.1))
    assert (curve.best_value, curve.plateau) == (0.001, (0.001, 0.01))
    assert (curve.diverged, curve.counts) == ((0, 0, 1, 2), (2, 2, 2, 0))
    assert curve.means[3] is curve.lows[3] is curve.highs[3] is None
    assert (curve.is_default_on_plateau, curve.score_at_default) == (False, pytest.approx(0.7))
    (gap,) = curves(sweep([0.6, 0.6, 0.6, 0.6], diverged=[0, 1, 0, 0]), default())
    assert gap.plateau == (0.001, 0.001)


def test_runs_to_come_leave_gaps():
    (curve,) = curves(sweep([None] * 4), default())
    assert (curve.best_value, curve.plateau, curve.plateau_width) == (None, None, None)
    assert curve.is_default_on_plateau is None
    (curve,) = curves(sweep([0.6, None, 0.6, 0.5]), default())
    assert curve.plateau == (0.001, 0.001)


def test_variants_tasks_and_other_fields_have_curves_of_their_own():
    lines = [
        line(variant, task, {"task.name": task, "prompt.length": length, RATE: rate}, [0.5])
        for variant in ("plain", "residual")
        for task in ("cb", "rte")
        for length in (5, 10)
        for rate in (0.1, 0.2, 0.3)
    ]
    found = curves(lines, default())
    assert [(c.variant, c.task, c.point) for c in found] == [
        (variant, task, {"prompt.length": length})
        for variant in ("plain", "residual")
        for task in ("cb", "rte")
        for length in (5, 10)
    ]
    assert all(c.field == RATE and c.values == (0.1, 0.2, 0.3) for c in found)
    bars = levels(lines, default(10))  # two lengths are too few for a curve
    assert [(b.field, b.names, b.point) for b in bars[:2]] == [
        ("prompt.length", ("5", "10"), {RATE: rate}) for rate in (0.1, 0.2)
    ]
    assert len(bars) == 2 * 2 * 3


def test_held_out_rows_have_a_curve_of_their_own():
    lines = [
        line("plain", "cb", {RATE: rate}, [0.5 + rate], [0.9 - rate, 0.8 - rate])
        for rate in (0.1, 0.2, 0.3)
    ]
    reported, held_out = curves(lines, default(0.1))
    assert [c.rows for c in (reported, held_out)] == ["reported", "held-out"]
    assert (reported.best_value, held_out.best_value) == (0.3, 0.1)
    assert held_out.means == pytest.approx((0.75, 0.65, 0.55))
    assert (reported.counts, held_out.counts) == ((1, 1, 1), (2, 2, 2))
    assert held_out.score_at_default == pytest.approx(0.75)


def test_names_are_levels():
    values = ["vocabulary", {"kind": "normal", "std": 0.1}, "uniform"]
    scores = [[0.6, 0.62], [0.603], [0.5, 0.7, 0.5]]
    lines = [
        line("plain", "cb", {"prompt.initializer": value}, own, [0.4])
        for value, own in zip(values, scores, strict=True)
    ]
    assert curves(lines, default()) == ()
    reported, held_out = levels(lines, default({"kind": "vocabulary"}, own="vocabulary"))
    assert reported.names == ("vocabulary", "normal std=0.1", "uniform")
    assert (reported.best_name, reported.near_best) == (
        "vocabulary",
        ("vocabulary", "normal std=0.1"),
    )
    assert (reported.default_name, reported.score_at_default) == ("vocabulary", pytest.approx(0.61))
    assert reported.lows[1] is None
    assert held_out.near_best == reported.names
    (other, _) = levels(lines, default({"kind": "text", "text": "a"}))
    assert (other.default_name, other.score_at_default) == ("text", None)


def test_levels_with_a_diverged_run_are_not_the_best():
    lines = [
        line("plain", "cb", {"x": name}, scores, (), n)
        for name, scores, n in (("a", [0.5], 0), ("b", [0.9], 1), ("c", [], 3))
    ]
    (found,) = levels(lines, default())
    assert (found.best_name, found.near_best, found.diverged) == ("a", ("a",), (0, 1, 3))
    (found,) = levels(lines[1:], default())
    assert (found.best_name, found.near_best) == (None, ())


def test_a_field_with_something_other_than_numbers_is_levels():
    lines = [line("plain", "cb", {"shots": v}, [0.5]) for v in (None, 32, 16)]
    assert curves(lines, default()) == ()
    assert levels(lines, default())[0].names == ("null", "32", "16")


def test_a_study_that_sweeps_nothing_says_nothing():
    lines = [line("plain", task, {"task.name": task, RATE: 0.1}, [0.5]) for task in ("cb", "rte")]
    assert robustness_of(lines, default()) == {"curves": [], "levels": []}


def test_all_of_it_is_plain_values():
    lines = sweep([0.5, None, 0.6, 0.6]) + sweep([0.5, 0.6], field="x", values=("a", "b"))
    found = json.loads(json.dumps(robustness_of(lines, default()), allow_nan=False))
    assert [c["best_value"] for c in found["curves"]] == [0.1]
    assert [b["best_name"] for b in found["levels"]] == ["b"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.001, 0.01, 0.1), True),
        ((1, 2, 5, 10, 20, 50, 100), True),
        ((50, 100, 200, 400), True),
        ((1.0, 10**1.5), True),
        ((10, 20, 30), False),
        ((1, 31), False),
        ((0, 1, 1000), False),
        ((-1, 1, 1000), False),
        ((5, 10), False),
    ],
)
def test_which_axis_is_logarithmic(values, expected):
    assert is_logarithmic(values) is expected


MEANS = st.lists(st.none() | st.integers(0, 8).map(lambda n: 0.5 + n / 400), max_size=8)


@given(MEANS, st.data())
def test_a_plateau_is_near_the_best_and_cannot_grow(means, data):
    usable = data.draw(st.lists(st.booleans(), min_size=len(means), max_size=len(means)))
    found = plateau(means, usable)
    counted = [m for m, ok in zip(means, usable, strict=True) if ok and m is not None]
    assert (found is None) == (not counted)
    if found is None:
        return
    best, low, high = found
    assert low <= best <= high
    assert means[best] == max(counted)

    def is_near(place):
        mean = means[place]
        return usable[place] and mean is not None and mean >= max(counted) - 0.01 - 1e-9

    assert all(map(is_near, range(low, high + 1)))
    assert low == 0 or not is_near(low - 1)
    assert high == len(means) - 1 or not is_near(high + 1)


@given(st.floats(0.1, 10), st.integers(1, 5), st.integers(2, 6))
def test_equal_ratios_are_logarithmic_at_any_scale(start, ratio, length):
    values = [start * (ratio + 1) ** n for n in range(length + 1)]
    assert is_logarithmic(values)
    shifted = [value - values[0] for value in values]
    assert not is_logarithmic(shifted)
    assert math.isclose(values[1] / values[0], ratio + 1)
