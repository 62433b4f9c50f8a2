"""Landscapes as pages and pictures: one scale, nothing from outside, nothing that escapes."""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

import softprompts as sp
from softprompts.lab.reports.figures import style
from softprompts.lab.reports.landscape_figures import build_landscapes, draw_landscapes
from softprompts.lab.reports.landscape_page import MOST_SURFACES, draw_page
from softprompts.lab.reports.landscapes import names_of, scale_of

EVIL = "</script><script>alert(1)</script>&<b>"


def plane(space, low, high):
    """Return a bowl from `low` in its middle to `high` at its corners."""
    axis = [-0.1, 0.0, 0.1]
    losses = [[low + (high - low) * (x * x + y * y) / 0.02 for x in axis] for y in axis]
    lines = {"first": losses[1], "second": [line[1] for line in losses]}
    return {
        "space": space,
        "directions": "gradient",
        "radius": 0.1,
        "loss": low,
        "slope": 1.5,
        "axis": axis,
        "losses": losses,
        "line_axis": axis,
        "lines": lines,
    }


def run(seed, task="superglue/cb", method="residual", **spaces):
    return {
        "folder": f"runs/{seed}",
        "identity": f"{seed:016x}",
        "method": method,
        "task": task,
        "seed": seed,
        "num_examples": 16,
        "spaces": {space: plane(space, *ends) for space, ends in spaces.items()},
        "left_out": {} if "prompt" in spaces else {"prompt": "no rows"},
    }


def landscapes(*runs):
    path = {"first": 0, "second": 1, "shares": [0.0, 0.5, 1.0], "losses": [0.5, 0.9, 0.6]}
    return {
        "sample": {"split": "train", "seed": 0},
        "grid": {"spaces": ("input", "prompt"), "directions": "gradient"},
        "runs": list(runs),
        "paths": [{**path, "barrier": 0.35}] if len(runs) > 1 else [],
        "seed_planes": [],
    }


SEEDS = {
    "runs": [0, 1, 2],
    "x_axis": [-0.25, 0.5, 1.25],
    "y_axis": [-0.2, 0.4, 1.0],
    "losses": [[0.5, 0.6, 0.7], [0.4, 0.9, 1.1], [0.8, 1.2, 1.5]],
    "marks": [[0.0, 0.0], [1.0, 0.0], [0.4, 0.8]],
    "mark_losses": [0.5, 0.6, 0.7],
    "distance": 0.3,
}


@pytest.fixture
def found():
    return landscapes(
        run(0, input=(0.5, 1.0), prompt=(0.5, 2.0)),
        run(1, input=(0.4, 3.0), prompt=(0.3, 0.9)),
        run(2, method="head-only", input=(0.7, 0.8)),
    )


class Reader(HTMLParser):
    """Collects tags and what stands in scripts."""

    def __init__(self):
        super().__init__()
        self.tags, self.scripts = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script":
            self.scripts[-1] += data


def read(page):
    reader = Reader()
    reader.feed(page.decode())
    return reader


def panels_of(page):
    """Return what plotly draws, by the name of its place: traces and layout."""
    places = [attrs for _, attrs in read(page).tags if "data-surface" in attrs]
    drawn = {one["id"]: json.loads(one["data-surface"]) for one in places}
    return {key: (one["data"], one["layout"]) for key, one in drawn.items()}


def test_all_surfaces_of_a_space_share_axes_and_one_scale(found):
    panels = panels_of(draw_page(found))
    assert set(panels) == {"input-0", "input-1", "input-2", "prompt-0", "prompt-1"}
    for space, low, high, count in (("input", 0.4, 3.0, 3), ("prompt", 0.3, 2.0, 2)):
        assert scale_of(found, space) == pytest.approx((low, high))
        runs = [one for one in found["runs"] if space in one["spaces"]]
        for number, one in zip(range(count), runs, strict=True):
            (surface, mark), layout = panels[f"{space}-{number}"]
            ends = [surface["cmin"], surface["cmax"]]
            assert (surface["type"], ends) == ("surface", list(scale_of(found, space)))
            assert surface["z"] == one["spaces"][space]["losses"]
            assert layout["scene"]["zaxis"]["range"] == ends
            assert layout["scene"]["xaxis"]["range"] == [-0.1, 0.1]
            assert surface["showscale"] == (number == 0)  # one bar explains all
            assert mark["z"] == [surface["z"][1][1]]


def test_lines_are_the_losses_of_every_run(found):
    with style():
        figure = build_landscapes(found)
    first = next(one for one in figure.axes if one.get_title("left") == "Inputs along x")
    assert [line.get_label() for line in first.lines] == names_of(found["runs"])
    wanted = [one["spaces"]["input"]["lines"]["first"] for one in found["runs"]]
    assert [list(line.get_ydata()) for line in first.lines] == wanted
    (path,) = figure.axes[-1].lines
    assert list(path.get_ydata()) == [0.5, 0.9, 0.6]
    assert path.get_label().endswith("barrier 0.35")


def test_a_sentence_says_which_is_flatter_and_by_how_much():
    two = [run(1, input=(0.5, 1.0)), run(2, input=(0.4, 3.0))]
    page = draw_page(landscapes(*two)).decode()
    said = "Inputs: residual, seed 1 is the flatter: its loss rises by at most 0.5 on its plane, "
    assert f"{said}that of residual, seed 2 by 2.6." in page
    third = run(3, input=(0.1, 0.2))
    page = draw_page(landscapes(*two, third)).decode()
    assert "residual, seed 3 is the flattest: its loss rises by at most 0.1 on its plane" in page
    assert "the flatte" not in draw_page(landscapes(third)).decode()


def test_a_notebook_shows_the_planes_and_what_is_flatter():
    shown = sp.Landscape(landscapes(run(1, input=(0.5, 1.0)), run(2, "<b>", input=(0.4, 3.0))))
    assert repr(shown) == "Landscape(residual, seed 1, superglue/cb; residual, seed 2, <b>: input)"
    assert "is the flatter: its loss rises by at most 0.5" in shown._repr_html_()
    assert shown._repr_html_().count("<svg") == 5
    assert "&lt;b&gt;" in shown._repr_html_()
    assert not re.search("<b>:|<script|Numbers", shown._repr_html_())
    assert shown._repr_png_().startswith(b"\x89PNG")


def test_many_planes_are_flat_maps_without_a_program():
    runs = [run(seed, input=(0.1 * seed, 1.0)) for seed in range(MOST_SURFACES + 1)]
    page = draw_page(landscapes(*runs)).decode()
    assert "<script" not in page
    assert "script-src 'none'" in page
    assert page.count("<image ") >= len(runs)
    few = panels_of(draw_page(landscapes(*runs[:MOST_SURFACES])))
    assert few["input-0"][0][0]["type"] == "surface"


def test_a_page_needs_nothing_else_and_says_all_it_knows(found):
    page = draw_page(found)
    reader = read(page)
    links = [attrs.get("src") or attrs.get("href") for _, attrs in reader.tags]
    links += [value for _, attrs in reader.tags if (value := attrs.get("xlink:href"))]
    assert all(one.startswith(("#", "data:")) for one in links if one)
    places = {attrs.get("id") for tag, attrs in reader.tags if tag == "div"}
    assert set(panels_of(page)) <= places
    text = page.decode()
    (program,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\">" in text
    assert "unsafe-eval" not in text.partition("<title>")[0]
    assert text.count("plotly.js v") == draw_page(landscapes(found["runs"][0])).count(
        b"plotly.js v"
    )
    assert "barrier 0.35" in text
    assert "head-only, seed 2: no prompt rows: no rows" in text
    numbers = re.search(r'<pre[^>]*label="Numbers">(.*?)</pre>', text, re.DOTALL)
    for one in found["runs"]:
        del one["folder"]
    assert json.loads(html.unescape(numbers.group(1))) == json.loads(json.dumps(found))


def test_a_page_says_what_it_shows_to_those_who_do_not_see_it(found):
    found["seed_planes"] = [SEEDS]
    page = draw_page(found)
    tags = read(page).tags
    said = [attrs["aria-label"] for _, attrs in tags if attrs.get("role") == "img"]
    names = names_of(found["runs"])
    assert len(said) == 5 + 4 + 1 + 1
    assert said[0] == (
        f"Loss of {names[0]} over a plane, inputs moved: 0.5 at the run, 0.5 to 1 around it."
    )
    assert f"Loss along the straight path from {names[0]} to {names[1]}." in said
    assert all(one.endswith(".") for one in said)
    (box,) = (attrs for _, attrs in tags if attrs.get("class") == "scroll")
    assert (box["tabindex"], box["role"]) == ("0", "region")
    assert box["aria-label"]
    assert "caption" in {tag for tag, _ in tags}
    assert {attrs.get("scope") for tag, attrs in tags if tag == "th"} == {"col"}
    blocks = [attrs for tag, attrs in tags if tag == "pre"]
    assert {(one["tabindex"], one["role"]) for one in blocks} == {("0", "region")}


def test_a_page_prints_what_is_folded(found):
    style_of = draw_page(found).decode().partition("</style>")[0]
    printed = style_of.partition("@media print")[2]
    assert "details::details-content { content-visibility: visible; block-size: auto; }" in printed
    assert "@media screen and (prefers-color-scheme: dark)" in style_of  # paper is light


def test_nothing_from_data_becomes_markup(found):
    evil = copy.deepcopy(found)
    for one in evil["runs"]:
        one["task"] = one["method"] = EVIL
    evil["runs"][2]["left_out"]["prompt"] = EVIL
    reader, plain = read(draw_page(evil)), read(draw_page(found))
    assert [tag for tag, _ in reader.tags] == [tag for tag, _ in plain.tags]
    assert reader.scripts == plain.scripts
    assert "&lt;/script&gt;" in draw_page(evil).decode()
    svg = draw_landscapes(evil).decode()
    assert "<script" not in svg
    assert "&lt;script" in svg


def test_names_tell_runs_apart():
    same = [run(0, input=(0.0, 1.0)), {**run(0, input=(0.0, 1.0)), "identity": "abcdef0123"}]
    assert names_of(same) == ["residual, seed 0 (000000)", "residual, seed 0 (abcdef)"]
    tasks = [run(0, input=(0.0, 1.0)), run(0, task="wic", input=(0.0, 1.0))]
    assert names_of(tasks) == ["residual, seed 0, superglue/cb", "residual, seed 0, wic"]
    noisy = [same[0], {**same[1], "regularizers": ["gaussian-noise"]}]
    assert names_of(noisy) == ["residual, seed 0", "residual + gaussian-noise, seed 0"]


@pytest.mark.parametrize("format", ["svg", "png"])
def test_a_picture_is_the_same_each_time(found, format):
    assert draw_landscapes(found, format) == draw_landscapes(copy.deepcopy(found), format)


def test_pictures_share_one_colour_scale_per_space(found):
    with style():
        figure = build_landscapes(found)
        images = [axes.images[0] for axes in figure.axes if axes.images]
    limits = [image.get_clim() for image in images if image.get_array().shape == (3, 3)]
    assert limits == [pytest.approx((0.4, 3.0))] * 3 + [pytest.approx((0.3, 2.0))] * 2


def test_a_flat_plane_can_be_drawn():
    flat = landscapes(run(0, input=(0.5, 0.5), prompt=(0.5, 0.5)))
    assert draw_landscapes(flat).startswith(b"<?xml")
    assert panels_of(draw_page(flat))["input-0"][0][0]["cmin"] == 0.5


@pytest.mark.slow
def test_a_page_draws_in_a_browser(found, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is absent")
    (tmp_path / "page.html").write_bytes(draw_page(found))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000"]
    page = subprocess.run(
        [browser, *options, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    ).stdout
    assert page.count('class="surface js-plotly-plot"') == 5


def test_a_plane_through_seeds_has_its_runs_marked(found):
    found["runs"] = [run(seed, prompt=(0.5, 2.0)) for seed in range(3)]
    found["seed_planes"] = [SEEDS]
    page = draw_page(found).decode()
    assert "A: residual, seed 0, B: residual, seed 1, C: residual, seed 2" in page
    with style():
        figure = build_landscapes(found)
    (axes,) = [ax for ax in figure.axes if ax.get_title("left").startswith("Plane through")]
    assert [text.get_text() for text in axes.texts] == [" A", " B", " C"]
    assert [tuple(text.xy) for text in axes.texts] == [tuple(m) for m in SEEDS["marks"]]
    (image,) = axes.images
    assert image.get_array().tolist() == SEEDS["losses"]
    assert image.get_extent() == pytest.approx([-0.625, 1.625, -0.5, 1.3])
    assert draw_landscapes(found) == draw_landscapes(found)
