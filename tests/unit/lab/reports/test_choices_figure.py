"""The figure of a run's choices: what is drawn, that it can be read, and that nothing leaks."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from choices_material import write_run
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from softprompts.lab.reports.choices import Choices, read_choices
from softprompts.lab.reports.choices_figures import (
    MOST_CLASSES,
    build_figure,
    draw_choices,
    draw_shares,
    share_hints,
)
from softprompts.lab.reports.figures import MAKER, drawable, style
from softprompts.lab.reports.pages import printable, short

HOSTILE = ["$x^{2}$", "<script>alert(1)</script>&", 'say "no"', "日本語", "a\nb\x01", "\ud800"]
LONG = [f"a class with a name that is far too long to be shown {i}" for i in range(20)]


def texts_of(picture: bytes) -> list[str]:
    root = ElementTree.fromstring(picture)
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("}text")]


def titles_of(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def choices(folder: Path, **about: object) -> Choices:
    return read_choices(write_run(folder, **about))  # type: ignore[arg-type]


POSITION = ["Position while training", "Position where the prompt was scored"]
LENGTH = ["Length while training", "Length where the prompt was scored"]
ENTROPY = "Entropy and temperature of the choice"
POOL = ["Pool while training", "Weights of the pool\non validation, by class"]


@pytest.mark.parametrize(
    ("parts", "titles"),
    [
        (("position",), [POSITION[0], ENTROPY, POSITION[1]]),
        (("length",), [LENGTH[0], ENTROPY, LENGTH[1]]),
        (("pool",), POOL),
        (
            ("position", "length", "pool"),
            [POSITION[0], LENGTH[0], ENTROPY, POSITION[1], LENGTH[1], *POOL],
        ),
    ],
)
def test_there_is_a_panel_for_what_exists_and_no_other(tmp_path, parts, titles):
    with style():
        figure = build_figure(choices(tmp_path / "run", parts=parts))

    assert titles_of(figure) == titles


def test_colours_are_the_shares_of_every_window(tmp_path):
    found = choices(tmp_path / "run", updates=130, shape=(7, 3))
    with style():
        figure = build_figure(found)
    position, length, pool, classes = (
        axes.images[0] for axes in figure.axes if axes.images and axes.get_title(loc="left")
    )

    for image, name in ((position, "position"), (length, "length")):
        shares = np.array([window.selected[name].shares for window in found.windows])
        assert np.array_equal(image.get_array(), shares.T)
        assert list(image.get_array().sum(axis=0)) == pytest.approx([1] * 44)
        assert tuple(image.get_extent()) == (0.5, 132.5, -0.5, 7.5)
        assert image.axes.get_xlim() == (0.5, 130.5)
    assert pool.get_array().shape == (3, 44)
    assert found.reported is not None
    assert found.reported.pool is not None
    rows = [found.reported.pool.weights, *found.reported.pool.by_class.values()]
    assert np.array_equal(classes.get_array(), np.array(rows))


def test_lines_are_entropy_and_temperature(tmp_path):
    found = choices(tmp_path / "run", updates=10, parts=("position",))
    with style():
        figure = build_figure(found)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}

    entropies = [window.selected["position"].entropy for window in found.windows]
    assert list(lines["position"].get_ydata()) == entropies
    assert list(lines["position, held-out rows"].get_xdata()) == [2, 4, 6, 8, 10]
    assert list(lines["temperature"].get_ydata()) == [w.temperature for w in found.windows]
    assert lines["most, log 5 = 1.61"].get_ydata()[0] == pytest.approx(np.log(5))


def test_bars_are_the_reported_shares_and_the_outline_held_out_ones(tmp_path):
    found = choices(tmp_path / "run", parts=("position",))
    with style():
        figure = build_figure(found)
    bars, outline = figure.axes[-1].patches
    assert found.reported is not None
    assert found.held_out_selected is not None
    for steps, chosen in ((bars, found.reported), (outline, found.held_out_selected)):
        assert tuple(steps.get_data().values) == chosen.selected["position"].shares
    assert (bars.get_fill(), outline.get_fill()) == (True, False)


def test_shares_of_a_study_are_means_with_seeds_and_spread():
    drawn = draw_shares("x", "a < b", [[0.2, 0.8], [0.6, 0.4]], 1, [0.1, 0.3])
    assert share_hints([[0.2, 0.8], [0.6, 0.4]], 1, [0.1, 0.3]) == [
        "1: 40 % ± 10 over inputs (20, 60)",
        "2: 60 % ± 30 over inputs (80, 40)",
    ]
    assert "<title>1: 40 % ± 10 over inputs (20, 60)</title>" in drawn
    assert "a &lt; b" in drawn
    names = re.findall(r' id="([^"]*)"', drawn)
    assert names
    assert all(one.startswith("x-") for one in names)


def overlaps(figure: Figure) -> tuple[list[str], list[tuple[str, str]]]:
    """Return texts that stick out of the figure, and pairs of texts that cover each other."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in _shown(figure)
        if text.get_text().strip()
    ]
    edge = figure.bbox
    outside = [
        name
        for name, box in boxes
        if box.x0 < 0 or box.y0 < 0 or box.x1 > edge.x1 or box.y1 > edge.y1
    ]
    pairs = [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]
    return outside, pairs


def _shown(figure: Figure) -> Sequence[Text]:
    """Return the texts that are drawn: ticks outside of an axis' limits are not."""
    hidden: set[int] = set()
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            is_on = axes.axison and axis.get_visible()
            drawn = [t for t in axis.get_major_ticks() if is_on and low <= t.get_loc() <= high]
            kept = {id(label) for tick in drawn for label in (tick.label1, tick.label2)}
            kept |= {id(axis.label)} if is_on else set()
            hidden |= {id(text) for text in axis.findobj(Text)} - kept
    return [t for t in figure.findobj(Text) if t.get_visible() and id(t) not in hidden]


@pytest.mark.parametrize(
    ("updates", "length", "size", "labels"),
    [
        (1, 1, 1, ["one"]),
        (5, 4, 4, ["good", "bad"]),
        (5000, 20, 16, LONG),
        pytest.param(700, 100, 40, [f"class {i}" for i in range(80)], marks=pytest.mark.slow),
        pytest.param(10_000, 4, 10, HOSTILE, marks=pytest.mark.slow),
    ],
)
def test_no_text_is_cut_or_covered(tmp_path, updates, length, size, labels):
    parts = ("position", "length", "pool")
    found = choices(
        tmp_path / "run", updates=updates, shape=(length, size), labels=labels, parts=parts
    )
    with style():
        outside, pairs = overlaps(build_figure(found, drawable))

    assert outside == []
    assert pairs == []


def test_a_text_that_is_cut_or_covered_is_noticed():
    figure = Figure(figsize=(2, 1))
    figure.text(0.9, 0.5, "sticks out of it")
    figure.text(0.1, 0.5, "under")
    figure.text(0.12, 0.52, "over")

    assert overlaps(figure) == (["sticks out of it"], [("under", "over")])


def test_labels_are_text_that_nothing_reads_as_more(tmp_path):
    found = choices(tmp_path / "run", labels=HOSTILE)
    texts = texts_of(draw_choices(found))

    assert {"$x^{2}$", 'say "no"', "日本語", r"a\nb\x01", r"\ud800"} <= set(texts)
    assert short("<script>alert(1)</script>&", 20) in texts
    assert len(draw_choices(found, "png")) > 10_000


def test_the_same_choices_give_the_same_bytes_and_leave_no_trace(tmp_path):
    found = choices(tmp_path / "run", updates=6)
    before = dict(mpl.rcParams)
    first = {format: draw_choices(found, format) for format in ("svg", "png")}
    assert dict(mpl.rcParams) == before
    with mpl.rc_context({"font.size": 40, "svg.fonttype": "path", "text.parse_math": True}):
        again = {format: draw_choices(found, format) for format in first}

    assert again == first
    assert len({*first.values()}) == 2
    for picture in first.values():
        assert MAKER.encode() in picture[:4096]
    assert b"dc:date" not in first["svg"]
    assert len(first["svg"]) < 100_000


def test_a_png_is_800_pixels_wide(tmp_path):
    picture = draw_choices(choices(tmp_path / "run", parts=("position",)), "png")
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        assert image.width == 800


@pytest.mark.parametrize(
    ("result", "texts"),
    [
        (None, ["finished, 10 updates", "dotted line: the selected state, after update 2"]),
        ({}, ["unfinished: 10 updates so far"]),
        ({"status": "diverged", "choices": None, "selected_step": 0}, ["diverged, 10 updates"]),
    ],
    ids=["finished", "unfinished", "diverged"],
)
def test_the_heading_says_how_far_the_run_is(tmp_path, result, texts):
    found = texts_of(draw_choices(choices(tmp_path / "run", result=result)))

    assert found[0] == "adap-ins-vec-pos on superglue/cb, seed 3"
    assert found[1 : 1 + len(texts)] == texts
    assert any("dotted line" in text for text in found) == (result is None)


def test_an_unfinished_run_shows_its_last_evaluation(tmp_path):
    texts = texts_of(draw_choices(choices(tmp_path / "run", result={})))

    assert texts.count("held-out rows after update 10, 16 inputs") == 2
    assert "on held-out rows after update 10, by class" in texts
    assert not any("validation" in text for text in texts)


def test_a_run_without_numbers_is_drawn_with_gaps(tmp_path):
    folder = write_run(tmp_path / "run", updates=1, result={})
    text = (folder / "metrics.jsonl").read_text().splitlines()[0]
    text = re.sub(r'("entropy": )[\d.]+', r"\1NaN", text)
    text = re.sub(r'("weights": \[)[^\]]+', r"\1NaN, NaN, NaN", text)
    (folder / "metrics.jsonl").write_text(f"{text}\n")
    found = read_choices(folder)

    assert found.windows[0].selected["position"].entropy is None
    assert "Pool while training" in texts_of(draw_choices(found))


def test_of_many_classes_those_that_differ_most_are_drawn(tmp_path):
    folder = write_run(tmp_path / "run", parts=("pool",), labels=[f"c{i}" for i in range(80)])
    result = json.loads((folder / "result.json").read_text())
    classes = result["choices"]["pool"]["by_class"]
    same = dict.fromkeys([f"c{i}" for i in range(30, 50)], result["choices"]["pool"]["weights"])
    classes |= same
    (folder / "result.json").write_text(json.dumps(result))
    texts = texts_of(draw_choices(read_choices(folder)))

    assert "the 60 of 80 classes that differ most" in texts
    assert [t for t in texts if re.fullmatch(r"c\d+", t)] == [k for k in classes if k not in same]
    assert len(classes) - len(same) == MOST_CLASSES


def test_texts_are_spelled_for_what_shows_them():
    assert printable("fine 日\t\x07") == r"fine 日\t\x07"
    assert drawable("fine é 日\t") == r"fine é \u65e5\t"
    assert [short("contradiction", n) for n in (13, 12, 3)] == [
        "contradiction",
        "contra…ction",
        "c…n",
    ]
