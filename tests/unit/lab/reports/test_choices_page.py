"""The page of a run's choices: every number where it belongs, nothing that escapes."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from browsing import browse, widths
from choices_material import write_run
from PIL import Image

from softprompts.lab.reports.choices import Choices, read_choices
from softprompts.lab.reports.choices_page import MOST_CLASSES, draw_page

HOSTILE = ["<script>alert(1)</script>&", 'say "no"', "日本語", "a\nb\x01"]


def choices(folder: Path, **about: object) -> Choices:
    return read_choices(write_run(folder, **about))  # type: ignore[arg-type]


def best_of(found: Choices, name: str) -> str:
    """Return the value that most inputs chose, and its share."""
    assert found.reported is not None
    shares = found.reported.selected[name].shares
    return f"{shares.index(max(shares))}: {100 * max(shares):.0f} %"


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of the table of weights."""
    rows = re.findall(r"<tr>(.*?)</tr>", text[text.index('id="pool"') :], re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    return [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in row] for row in cells]


def test_a_page_has_the_numbers_and_asks_for_nothing(tmp_path):
    found = choices(tmp_path / "run", labels=HOSTILE)
    text = draw_page(found).decode()
    numbers = re.search(r'<pre[^>]*label="Numbers">(.*)</pre>', text, re.DOTALL)

    assert numbers
    assert json.loads(html.unescape(numbers[1])) == json.loads(json.dumps(found.as_json()))
    assert "<script" not in text
    assert "script-src 'none'" in text
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(one.startswith(("#", "data:")) for one in links)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert draw_page(found).decode() == text
    assert '<pre tabindex="0" role="region" aria-label="Numbers">' in text
    (said,) = re.findall(r'<figure role="img" aria-label="([^"]*)"><svg', text)
    assert f"inputs by position: {best_of(found, 'position')}" in html.unescape(said)
    names = re.findall(r' id="([^"]*)"', text)
    assert len(names) == len({*names})


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
        assert row[1:] == [f"{100 * mean:.1f} ± {100 * std:.1f}" for mean, std in pairs]


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

    assert "<h1>adap-ins-vec-pos on superglue/cb, seed 3" in text
    for said in texts:
        assert said in text
    assert ("dotted line" in text) == is_marked
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
