"""What a report is drawn from: curves over seeds, axes, examples, and markup."""

from __future__ import annotations

import html
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from softprompts.errors import StorageError
from softprompts.lab.reports.pages import Head, Part, Section, page, printable
from softprompts.lab.reports.records import Curve, curve_of, curves_of, read_curves, read_examples
from softprompts.lab.reports.study_figures import (
    Row,
    Scale,
    draw_curves,
    draw_rows,
    draw_sweep,
    scale_around,
)
from softprompts.lab.reports.tabular import Column, Table


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
    assert read_curves(tmp_path) == ({1: 0.5}, {1: 0.25})
    loss, score = curves_of([tmp_path])
    assert loss is not None
    assert loss.means == (0.5,)
    assert score is None  # one evaluation is no curve
    assert curves_of([tmp_path / "none"]) == (None, None)


def test_an_axis_around_values_holds_them():
    scale = scale_around([0.5, 0.75, math.nan])
    assert scale.low < 0.5 < 0.75 < scale.high
    assert scale_around([0.5]).low < 0.5 < scale_around([0.5]).high
    assert scale_around([]).beyond((0.5, 0.5)) == ""


def drawn_row(*rows, scale, unit="%"):
    """Return hints of a figure, and how often each kind of arrow is in it."""
    drawn = draw_rows("x", rows, scale, {"majority class": 0.5}, unit)
    return re.findall(r"<title>([^<]*)</title>", drawn), drawn


def test_an_interval_is_cut_and_said_where_it_leaves_the_axis():
    scale = Scale(0.0, 1.0)
    assert scale.beyond((0.0, 1.0)) == scale.beyond(None) == ""
    assert scale.beyond((-0.1, 1.0)) == scale.beyond((0.5, 1.1)) == ", beyond the axis"
    inner, left, both = (
        drawn_row(Row("a", "b", "c", 0.5, ends), scale=scale)[1]
        for ends in ((0.0, 1.0), (-1.0, 1.0), (-1.0, 2.0))
    )
    assert inner.count("<use") < left.count("<use") < both.count("<use")


def test_a_row_says_what_it_is_and_every_dot_its_value():
    row = Row("<b>", "1 & 2", "all", 0.5, (0.4, 0.6), (0.3, 0.7), (0.4, 0.6), ("one", "<two>"))
    hints, drawn = drawn_row(row, Row("lost", "no score", "no score", None), scale=Scale(0, 1))
    assert sorted({*hints}) == ["&lt;two&gt;", "all", "majority class: 50.0", "one"]
    assert ">&lt;b&gt;</text>" in drawn
    assert ">1 &amp; 2</text>" in drawn
    assert ">no score</text>" in drawn
    assert not re.search(r"#(?:0072b2|1c1d20)", drawn)
    assert "var(--accent)" in drawn
    assert "var(--ink)" in drawn


def test_curves_and_sweeps_say_their_values_and_what_they_are():
    curve = Curve((1, 2), (0.5, 0.25), (0.4, 0.2), (0.6, 0.3), (2, 2))
    about = [("Score, %", 100.0, Scale(0.0, 1.0), 4), ("Loss", 1.0, Scale(0.0, 1.0), 4)]
    drawn = draw_curves("x", "a & b", [("one", (None, curve))], ("base", (curve, curve)), about)
    hints = re.findall(r"<title>([^<]*)</title>", drawn)
    assert hints == ["base: from 50 to 25", "base: from 0.5 to 0.25", "one: from 0.5 to 0.25"]
    assert ">a &amp; b</text>" in drawn
    names = re.findall(r">(update|score, %|loss)</text>", drawn)
    assert names == ["update", "score, %", "update", "loss"]
    assert ">4</text>" in drawn  # the last update of all curves, though these end at 2
    sweep = {
        "field": "f", "values": [0, 1, 10], "means": [0.5, None, 0.6], "lows": [0.4, None, None],
        "highs": [0.6, None, None], "plateau": [1, 10], "default_value": 1, "diverged": [0, 1, 0],
    }  # fmt: skip
    hints = ["0: 50.0", "1: lost", "10: 60.0"]
    drawn = draw_sweep("x", "t", (sweep, None), Scale(0.3, 0.7), hints)
    assert re.findall(r"<title>([^<]*)</title>", drawn) == hints
    assert "var(--mark)" in drawn


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
def test_text_is_escaped_once_and_never_markup(text):
    section = Section("a", "b", (Part("text", text), Part("code", text, text)))
    drawn = page(text, Head("kind", text), [section])
    assert drawn.count("<p>") == 1
    inside = re.search(r"<p>(.*)</p>", drawn, re.DOTALL)
    assert inside
    assert not {*inside[1]} & {*"<>\"'"}
    spelled = printable(text, "\n\t")
    assert html.unescape(inside[1]) == html.unescape(str(escape(spelled)))
    assert "<script" not in drawn


def test_a_table_of_a_page_has_headings_caption_and_its_files():
    columns = (Column("a", "A"), Column("b", "B", "count"), Column("c", "C", is_shown=False))
    table = Table("t", "T & T", columns, ({"a": "x", "b": 1234, "c": "z"},), "a note")
    drawn = page("p", Head("k", "t"), [Section("s", "S", (Part("table", table),))])
    assert '<th class="text" scope="col">A</th><th class="" scope="col">B</th></tr>' in drawn
    assert "<caption>T &amp; T</caption>" in drawn
    assert '<td class="text">x</td><td class="">1,234</td></tr>' in drawn
    assert re.findall(r'download="([^"]*)"', drawn) == ["t.csv", "t.tex"]
    assert "<summary>T &amp; T: table of" not in drawn
    folded = page("p", Head("k", "t"), [Section("s", "S", (Part("folded-table", table),))])
    assert "<summary>T &amp; T: table of 1 rows</summary>" in folded
