"""What a report is drawn from: curves over seeds, axes, examples, and markup."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import StorageError
from softprompts.lab.reports.curves_of_runs import curve_of, curves_of, read_curves
from softprompts.lab.reports.examples import read_examples
from softprompts.lab.reports.markup import Html, escaped, tag
from softprompts.lab.reports.svg import Scale, bar, beyond, dots, scale_around


def test_a_bar_has_arrow_heads_where_it_leaves_the_axis():
    scale = Scale(0.0, 1.0)
    assert "beyond" not in bar(scale, (0.0, 1.0), "items", "all")
    assert beyond(scale, (0.0, 1.0)) == ""
    left, right, both = (
        bar(scale, ends, "items", "all") for ends in ((-1.0, 1.0), (0.0, 2.0), (-1.0, 2.0))
    )
    assert re.findall(r'<svg x="([^"]*)"', left) == ["0.00%"]
    assert re.findall(r'<svg x="([^"]*)"', right) == ["100.00%"]
    assert re.findall(r'<svg x="([^"]*)"', both) == ["0.00%", "100.00%"]
    assert both.count("<title>all, beyond the axis</title>") == 3


def test_a_curve_is_mean_and_ends_over_seeds():
    first = {step: float(step) for step in range(1, 7)}
    second = {step: 3.0 * step for step in range(1, 5)}  # it ended early
    curve = curve_of([first, second], most_windows=3)
    assert curve is not None
    assert curve.steps == (2, 4, 6)
    assert curve.lows == (1.5, 3.5, 5.5)
    assert curve.highs == (4.5, 10.5, 5.5)
    assert curve.means == (3.0, 7.0, 5.5)
    assert curve.counts == (2, 2, 1)
    assert curve_of([{}, {}]) is None


@given(st.integers(1, 300), st.integers(1, 40))
def test_a_curve_has_few_windows_and_misses_no_update(count, most):
    curve = curve_of([dict.fromkeys(range(1, count + 1), 1.0)], most)
    assert curve is not None
    assert len(curve.steps) <= most
    assert curve.steps[-1] == count
    assert set(curve.means) == {1.0}


def test_records_are_split_into_losses_and_held_out_scores(tmp_path):
    records = [
        {"step": 1, "loss": 0.5},
        {"step": 1, "split": "held_out", "score": 0.25, "loss": 9.0},
        {"step": 1, "split": "other", "score": 0.75},
        {"step": 2, "loss": math.inf},
        {"step": 3, "loss": None},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))
    found = read_curves(tmp_path)
    assert (found.losses, found.scores) == ({1: 0.5}, {1: 0.25})
    loss, score = curves_of([tmp_path])
    assert loss is not None
    assert loss.means == (0.5,)
    assert score is None  # one evaluation is no curve
    assert curves_of([tmp_path / "none"]) == (None, None)


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0.47, 0.66), [0.5, 0.55, 0.6, 0.65]),
        (Scale(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Scale(-12.0, 31.0), [-10.0, 0.0, 10.0, 20.0, 30.0]),
        (Scale(0.07, 12.0, True), [0.1, 1.0, 10.0]),
        (Scale(0.4, 2.1, True), [0.5, 1.0, 2.0]),
        (Scale(2.0, 2.0), [2.0]),
    ],
)
def test_ticks_are_round_and_on_the_axis(scale, ticks):
    assert scale.ticks() == pytest.approx(ticks)


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e4), st.booleans())
def test_an_axis_places_its_ends_and_keeps_order(low, factor, is_logarithmic):
    scale = Scale(low, low * factor, is_logarithmic)
    assert scale.place(scale.low) == pytest.approx(0, abs=1e-6)
    assert scale.place(scale.high) == pytest.approx(100)
    middle = scale.place(low * (1 + factor) / 2)
    assert 0 < middle < 100
    assert is_logarithmic or middle == pytest.approx(50)
    assert (scale.place(low / 2), scale.place(low * factor * 2)) == (0, 100)
    assert len(scale.ticks()) <= 6


def test_an_axis_around_values_holds_them():
    scale = scale_around([0.5, 0.75, math.nan])
    assert scale.low < 0.5 < 0.75 < scale.high
    assert scale_around([0.5]).low < 0.5 < scale_around([0.5]).high
    assert scale_around([]).holds(0.5)


def test_dots_that_would_hide_each_other_stand_apart():
    drawn = dots([10.0, 10.2, 50.0, 10.1], ["a", "b", "c", "d"])
    heights = [one.split('cy="')[1].split('"')[0] for one in drawn]
    assert heights[2] == "15"
    assert len({heights[0], heights[1], heights[3]}) == 3


def test_examples_are_the_last_and_whole_ones(tmp_path):
    assert read_examples(tmp_path, 2) == ()
    block = "step {0}, label a\n  before: x [{0}]\n  after:  y [{0}]\n\n"
    text = "".join(block.format(step) for step in range(4)) + "step 9, label a\n  before: half"
    (tmp_path / "examples.txt").write_text(text)
    found = read_examples(tmp_path, 2)
    assert [(one.heading, one.before, one.after) for one in found] == [
        ("step 2, label a", "x [2]", "y [2]"),
        ("step 3, label a", "x [3]", "y [3]"),
    ]
    (tmp_path / "examples.txt").unlink()
    (tmp_path / "examples.txt").mkdir()
    with pytest.raises(StorageError, match=r"examples\.txt could not be read: Is a directory"):
        read_examples(tmp_path, 2)


@given(st.text())
def test_text_is_escaped_once_and_markup_never(text):
    once = tag("p", text, title=text)
    assert tag("div", once) == f"<div>{once}</div>"
    assert "<" not in escaped(text)
    assert '"' not in escaped(text)
    assert isinstance(once, Html)
    assert once.count("<") == 2


def test_attributes_may_be_left_out():
    assert tag("details", open=True, class_=None, hidden=False) == "<details open></details>"
    assert tag("meta", name="a", http_equiv="b") == '<meta name="a" http-equiv="b">'
