"""The page on statistics has the figures that were simulated, and the simulation runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from other_intervals import IMPROVEMENT_METHODS, MEAN_METHODS, RATIO_METHODS

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "docs" / "statistics.md"
FIGURES = json.loads((ROOT / "docs" / "results" / "statistics.json").read_text("utf-8"))


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "results" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return loaded("write_statistics")


def test_the_page_is_what_the_script_writes(script):
    text = PAGE.read_text("utf-8")
    assert script.refreshed(text, FIGURES) == text
    figure = str(FIGURES["covered"]["mean, t"]["normal, 5"]["share"])
    changed = json.loads(json.dumps(FIGURES).replace(figure, "0.123"))
    assert script.refreshed(text, changed) != text


def test_the_figures_are_those_of_this_script(script):
    small = script.simulate(3, 2)
    for part in ("covered", "items", "rejected"):
        assert {*small[part]} == {*FIGURES[part]}
    assert (FIGURES["num_studies"], FIGURES["num_item_studies"], FIGURES["num_resamples"]) == (
        script.NUM_STUDIES,
        script.NUM_ITEM_STUDIES,
        script.NUM_RESAMPLES,
    )
    assert small == script.simulate(3, 2)


def worst(name):
    return min(cell["share"] for cell in FIGURES["covered"][name].values())


def test_defaults_have_the_best_worst_coverage():
    for start, methods in (
        ("mean", MEAN_METHODS),
        ("ratio", RATIO_METHODS),
        ("improvement", IMPROVEMENT_METHODS),
    ):
        shares = [worst(f"{start}, {method}") for method in methods]
        assert shares[0] == max(shares), start


def test_known_truths_are_met():
    """On normal scores Student's interval is exact, and so is a sign-flip test of ten pairs."""
    error = (0.05 * 0.95 / FIGURES["num_studies"]) ** 0.5
    for place in ("normal, 5", "normal, 10"):
        assert abs(FIGURES["covered"]["mean, t"][place]["share"] - 0.95) < 4 * error
    flips = FIGURES["rejected"]["alike"]["mean: sign flips"]
    assert flips["normal, 5"]["share"] == 0
    assert abs(flips["normal, 10"]["share"] - 50 / 1024) < 4 * error


def test_of_looks_the_page_has_what_was_simulated_and_false_leads_are_as_few_as_is_said():
    looks, text = loaded("write_looks"), PAGE.read_text("utf-8")
    found = json.loads((ROOT / "docs" / "results" / "looks.json").read_text("utf-8"))
    assert looks.refreshed(text, found) == text
    assert looks.refreshed(text, {**found, "num_studies": 7}) != text
    assert found["num_studies"] == looks.NUM_STUDIES >= 2000
    for name, row in found["cells"].items():
        for cell in row.values():
            if not name.startswith("2 alike,"):
                assert cell["wrong"] <= 0.05
            assert cell["wrong"] <= 0.05 + 2 * (0.05 * 0.95 / looks.NUM_STUDIES) ** 0.5
    small = looks.simulate(1)["cells"]
    assert {name: {*row} for name, row in small.items()} == {
        name: {*row} for name, row in found["cells"].items()
    }
