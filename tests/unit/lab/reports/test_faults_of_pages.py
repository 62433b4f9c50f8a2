"""Pages in both schemes of colours, as axe sees them in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
import write_screens
from browsing import SCHEMES, violations
from choices_material import write_run
from study_material import SMALL, make_study, study_like

from softprompts.html_card import html_card
from softprompts.lab.fit.card import card as fit_card
from softprompts.lab.notebooks import Landscape, Study
from softprompts.lab.reports import choices_page, landscape_page
from softprompts.lab.reports.choices import read_choices
from softprompts.lab.reports.landscapes import keep_landscapes
from softprompts.lab.reports.report import write_report

GRID = {"task.name": ["bundled/sentiment", "bundled/entailment"], "prompt.length": [2, 5, 20]}


def landscapes(*identities: str) -> dict[str, object]:
    axis = [-0.1, 0.0, 0.1]
    plane = {
        "space": "input", "directions": "gradient", "radius": 0.1, "loss": 0.5, "slope": 1.0,
        "axis": axis, "losses": [[0.6, 0.5, 0.6]] * 3, "line_axis": axis,
        "lines": {"first": [0.6, 0.5, 0.6], "second": [0.6, 0.5, 0.7]},
    }  # fmt: skip
    runs = [
        {
            "folder": f"runs/{seed}", "identity": identity, "method": "residual", "task": "cb",
            "seed": seed, "num_examples": 16, "spaces": {"input": plane}, "left_out": {},
        }
        for seed, identity in enumerate(identities)
    ]  # fmt: skip
    grid = {"spaces": ["input"], "directions": "gradient"}
    return {
        "sample": {"split": "train"}, "grid": grid, "runs": runs, "paths": [], "seed_planes": [],
    }  # fmt: skip


def report(folder: Path) -> str:
    study = make_study(folder, study_like(grid=GRID))
    keep_landscapes(study, landscapes("0123"))
    return Path(write_report(study)["html"]).read_text("utf-8")


def unfinished(folder: Path) -> str:
    def outcome(cell):
        return None if cell.config.seed else {"status": "diverged"}

    return Path(write_report(make_study(folder, SMALL, outcome))["html"]).read_text("utf-8")


def landscape(folder: Path) -> str:
    return landscape_page.draw_page(landscapes("01", "23")).decode()


def choices(folder: Path) -> str:
    return choices_page.draw_page(read_choices(write_run(folder))).decode()


def card(folder: Path) -> str:
    """Return the card of a fitted prompt, in the style of all pages."""
    score = {"score": 0.8, "interval": (0.7, 0.9)}
    about = {
        "backbone": "smollm2", "label": "mood", "num_train": 60, "source": "moods.jsonl",
        "method": "stable", "rate": 0.03, "plan": {"updates": 40}, "fields": ["text"],
        "labels": ["good", "bad"], "num_held_back": 40, "metric": "accuracy", "expected": score,
        "best": score, "single": {"mean": 0.78, "std": 0.02, "scores": [0.8, 0.76]},
        "remarks": ["rows were few"],
        "yardsticks": [
            {"method": "zero-shot", "mean": 0.6, "std": 0.0, "above": 0.2, "interval": (0.1, 0.3)},
            {"method": "in-context", "shown": 8, "mean": 0.7, "std": 0.1, "above": 0.1,
             "interval": (0.0, 0.2)},
        ],
    }  # fmt: skip
    folder.mkdir()
    (folder / "README.md").write_text(fit_card(about, "my-prompt"), "utf-8")
    return write_screens.from_markdown(folder / "README.md", folder).read_text("utf-8")


def notebook(folder: Path) -> str:
    """Return what notebooks show, in a page that follows the scheme as theirs do."""
    study = make_study(folder, SMALL)
    shown = [
        html_card("residual on cb", {"score": 0.7, "folder": "runs/0"}),
        Study({}, study)._repr_html_(),
        Landscape(landscapes("01", "23"))._repr_html_(),
    ]
    head = "<style>:root { color-scheme: light dark; }</style><title>cards</title>"
    body = f"<main><h1>Cards</h1>{''.join(shown)}</main>"
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>'


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("page", [report, unfinished, landscape, choices, card, notebook])
def test_a_page_has_no_serious_fault_for_those_who_do_not_see_it(tmp_path, page, scheme):
    assert violations(tmp_path / "probe.html", page(tmp_path / "made"), scheme) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_fault_is_seen(tmp_path, scheme):
    text, probe = choices(tmp_path / "run"), tmp_path / "probe.html"
    broken = text.replace("</h1>", '</h1><img src="data:,">', 1)
    (fault,) = violations(probe, broken, scheme)
    assert fault.startswith("image-alt <img")
    colour = {"light": "#ddd", "dark": "#333"}[scheme]
    faint = text.replace("</h1>", f'</h1><p style="color: {colour}">faint</p>', 1)
    (fault,) = violations(probe, faint, scheme)
    assert fault.startswith("color-contrast <p")
