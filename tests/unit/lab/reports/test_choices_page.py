"""The page of a run's choices: every number where it belongs, nothing that escapes."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browsing import browse, widths
from choices_material import read_lines, write_lines, write_run
from PIL import Image

from softprompts.lab.reports.choices import Choices, read_choices
from softprompts.lab.reports.choices_page import MOST_CLASSES, draw_page

HOSTILE = ["<script>alert(1)</script>&", 'say "no"', "日本語", "a\nb\x01"]


def choices(folder: Path, **about: object) -> Choices:
    return read_choices(write_run(folder, **about))  # type: ignore[arg-type]


def charts_of(text: str) -> dict[str, ElementTree.Element]:
    """Return the first picture of every chart, by its title."""
    found = re.findall(r'<div class="chart[^"]*"><h4>(.*?)</h4>.*?(<svg .*?</svg>)', text)
    return {html.unescape(title): ElementTree.fromstring(svg) for title, svg in found}


def shades_of(picture: ElementTree.Element) -> dict[tuple[int, int], float]:
    """Return the opacity of every cell of a map, by its place from the left and from the top."""
    found = {}
    for path in picture.iter("path"):
        for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", path.attrib["d"]):
            found[int(x), int(y)] = float(path.attrib["fill-opacity"])
    return found


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of the table of weights."""
    rows = re.findall(r"<tr>(.*?)</tr>", text[text.index('id="pool"') :])
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    return [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in row] for row in cells]


def test_a_page_has_the_numbers_and_asks_for_nothing(tmp_path):
    found = choices(tmp_path / "run", labels=HOSTILE)
    text = draw_page(found).decode()
    numbers = re.search(r"<pre[^>]*>(.*)</pre>", text, re.DOTALL)

    assert numbers
    assert json.loads(html.unescape(numbers[1])) == json.loads(json.dumps(found.as_json()))
    assert "<script" not in text
    assert "script-src 'none'" in text
    assert not re.findall(r'(?:src|href)="([^"]*)"', text)
    assert draw_page(found).decode() == text
    assert '<pre tabindex="0" role="region" aria-label="Numbers">' in text
    pictures = re.findall(r"<svg[^>]*>", text)
    assert any("over-map" in one for one in pictures)
    assert [one for one in pictures if "role=" not in one and "aria-hidden=" not in one] == []


@pytest.mark.parametrize("updates", [10, 130])
def test_maps_are_the_shares_of_every_window(tmp_path, updates):
    found = choices(tmp_path / "run", updates=updates, shape=(7, 3))
    charts = charts_of(draw_page(found).decode())

    lines = {
        "Position: rows in front": [window.selected["position"].shares for window in found.windows],
        "Length: active rows": [window.selected["length"].shares for window in found.windows],
        "Pool: weight of each set": [w.pool.weights for w in found.windows if w.pool],
    }
    for title, values in lines.items():
        most = max(max(line) for line in values)
        picture = charts[f"{title}, full colour {100 * most:.0f} %"]
        size = len(values[0])
        assert picture.attrib["viewBox"] == f"0 0 {len(values)} {size}"
        wanted = {
            (x, size - 1 - y): round(20 * share / most) / 20
            for x, line in enumerate(values)
            for y, share in enumerate(line)
            if round(20 * share / most) > 0
        }
        assert shades_of(picture) == pytest.approx(wanted)
        titles = [rect.findtext("title") for rect in picture.iter("rect")]
        best = max(range(size), key=lambda y: (values[2][y], -y))
        first = 1 if title.startswith("Pool") else 0
        steps = (found.windows[2].first_step, found.windows[2].last_step)
        said = f"update {steps[0]}" if steps[0] == steps[1] else f"updates {steps[0]} to {steps[1]}"
        assert titles[2].startswith(f"{said}: {best + first}: {100 * values[2][best]:.0f} %")


def test_columns_are_the_reported_shares_and_the_outline_held_out_ones(tmp_path):
    found = choices(tmp_path / "run")
    charts = charts_of(draw_page(found).decode())
    assert found.reported is not None
    assert found.held_out_selected is not None
    shares = found.reported.selected["length"].shares
    others = found.held_out_selected.selected["length"].shares

    picture = charts["Length: active rows, 16 inputs"]
    top = 1.05 * max(*shares, *others)
    heights = [float(rect.attrib["height"]) for rect in picture.iter("rect")]
    assert heights == pytest.approx([100 * share / top for share in shares], abs=0.01)
    (outline,) = picture.iter("polyline")
    corners = [float(place.split(",")[1]) for place in outline.attrib["points"].split()]
    assert corners[1:-1:2] == pytest.approx([100 - 100 * share / top for share in others], abs=0.01)


def test_lines_are_entropy_and_temperature_and_gaps_stay_open(tmp_path):
    folder = write_run(tmp_path / "run", updates=10, parts=("position",))
    lines = read_lines(folder)
    place = next(n for n, one in enumerate(lines) if one["step"] == 5 and "split" not in one)
    lines[place]["position"]["entropy"] = float("nan")
    write_lines(folder, lines)
    found = read_choices(folder)
    charts = charts_of(draw_page(found).decode())

    picture = charts["Entropy in nats; the most is log 5 = 1.61"]
    drawn = [one for one in picture.iter("polyline") if one.attrib["class"] == "curve "]
    places = [one.attrib["points"].split() for one in drawn]
    assert [len(one) for one in places] == [4, 5]
    entropies = [w.selected["position"].entropy for w in found.windows]
    heights = [100 - float(one.split(",")[1]) for line in places for one in line]
    wanted = [100 * one / (1.05 * 1.6094379) for one in entropies if one is not None]
    assert heights == pytest.approx(wanted, abs=0.06)
    dots = [path for path in picture.iter("path") if path.attrib["class"] == "held "]
    assert len(dots) == len(found.held_out) == 5
    (line,) = [one for one in charts if one.startswith("Temperature")]
    assert line == f"Temperature, from {found.windows[0].temperature:.3g} to 0.5"


def test_weights_stand_by_class_with_their_spread(tmp_path):
    found = choices(tmp_path / "run", parts=("pool",), labels=["good", *HOSTILE[:2]])
    heads, *rows = rows_of(draw_page(found).decode())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    pool = result["choices"]["pool"]

    assert heads == ["inputs", "set 1", "set 2", "set 3"]
    assert [row[0] for row in rows] == ["all inputs", "good", *HOSTILE[:2]]
    weights = [pool["weights"], *pool["by_class"].values()]
    stds = [pool["stds"], *pool["stds_by_class"].values()]
    for row, means, spreads in zip(rows, weights, stds, strict=True):
        pairs = zip(means, spreads, strict=True)
        assert row[1:] == [f"{100 * mean:.0f} ± {100 * std:.0f}" for mean, std in pairs]


def test_a_run_without_logged_spread_has_weights_alone(tmp_path):
    folder = write_run(tmp_path / "run", parts=("pool",))
    for path in (folder / "metrics.jsonl", folder / "result.json"):
        bare = re.sub(r', "stds(?:_by_class)?": (?:\[[^]]*\]|\{[^}]*\})', "", path.read_text())
        path.write_text(bare)
    text = draw_page(read_choices(folder)).decode()

    assert "stds" not in text
    assert not any("±" in cell for row in rows_of(text) for cell in row)


def test_of_many_classes_those_that_differ_most_are_shown(tmp_path):
    folder = write_run(tmp_path / "run", parts=("pool",), labels=[f"c{i}" for i in range(80)])
    result = json.loads((folder / "result.json").read_text())
    pool = result["choices"]["pool"]
    pool["by_class"] |= dict.fromkeys([f"c{i}" for i in range(30, 50)], pool["weights"])
    (folder / "result.json").write_text(json.dumps(result))
    text = draw_page(read_choices(folder)).decode()

    assert "The 60 of 80 classes that differ most." in text
    shown = [row[0] for row in rows_of(text)[2:]]
    assert shown == [f"c{i}" for i in range(80) if not 30 <= i < 50]
    assert len(shown) == MOST_CLASSES


@pytest.mark.parametrize(
    ("result", "texts", "is_marked"),
    [
        (None, ["finished, 10 updates", "dotted line: the selected state, after update 2"], True),
        ({}, ["unfinished: 10 updates so far", 'class="state open">unfinished'], False),
        (
            {"status": "diverged", "choices": None, "selected_step": 0},
            ["diverged, 10 updates", 'class="state open">diverged'],
            False,
        ),
    ],
    ids=["finished", "unfinished", "diverged"],
)
def test_the_heading_says_how_far_the_run_is(tmp_path, result, texts, is_marked):
    text = draw_page(choices(tmp_path / "run", result=result)).decode()

    assert "<h1>adap-ins-vec-pos on superglue/cb, seed 3 " in text
    for said in texts:
        assert said in text
    assert ('class="selected"' in text) == is_marked
    assert ('class="state open"' in text) != is_marked


def test_a_page_is_dark_for_those_who_want_it_and_fits_a_phone(tmp_path):
    found = choices(tmp_path / "run", shape=(20, 16), labels=["a " * 40, "b" * 120])
    page = tmp_path / "page.html"
    page.write_bytes(draw_page(found))
    brightness = {}
    for name, option in (("light", "1"), ("dark", "0")):
        picture = tmp_path / f"{name}.png"
        scheme = f"--blink-settings=preferredColorScheme={option}"
        browse(page, scheme, f"--screenshot={picture}", width=800)
        with Image.open(picture) as image:
            pixels = list(image.convert("L").resize((80, 90)).tobytes())
        brightness[name] = sum(pixels) / len(pixels)

    assert brightness["light"] > 180
    assert brightness["dark"] < 80
    assert widths(tmp_path / "probe.html", page.read_text("utf-8")) == (400, 400)
