"""Which variants were still learning: by training losses, over seeds, of runs that tell."""

from __future__ import annotations

import json

import pytest
from study_material import BASE, make_study, study_like

from softprompts.lab.reports.learning import still_learning
from softprompts.lab.reports.report import write_report
from softprompts.recipes.grid import expand
from softprompts.recipes.study import parse_study

STEADY = [2.0, 1.5, 1.2, 1.0, 0.8]


def said(tmp_path, fifths, *, steps=20, outcome=lambda cell: {}, **changes):
    """Return what is said of `plain`, whose losses are `fifths` plus what the seed adds."""
    content = study_like(seeds=3, variants={"plain": {"training.steps": steps}}, **changes)
    folder = make_study(tmp_path / "study", content, outcome)
    cells = expand(parse_study(content))
    for cell in cells:
        losses = [fifths(cell.config.seed)[5 * step // steps] for step in range(steps)]
        lines = [json.dumps({"step": n, "loss": loss}) for n, loss in enumerate(losses, start=1)]
        file = folder / "runs" / cell.identity / "metrics.jsonl"
        if file.exists():  # the run is one that ended
            file.write_text("".join(f"{line}\n" for line in lines))
    return still_learning(cells, folder)


def test_it_is_said_with_the_losses_that_show_it_and_stands_in_the_report(tmp_path):
    found = said(tmp_path, lambda seed: STEADY)
    assert found == [
        "still learning when the updates ended: plain on bundled/sentiment (1.00, then 0.80), by "
        "the training loss in the last two fifths of them; more updates could help"
    ]
    assert f"S{found[0][1:]}." in write_report(tmp_path / "study")["certainty"]


@pytest.mark.parametrize(
    ("fifths", "why"),
    [
        (lambda seed: [2.0, 1.5, 1.2, 0.25, 0.19], "a tenth of the first loss is left"),
        (lambda seed: [2.0, 1.5, 1.2, 1.0, 0.91], "it falls by less than a tenth"),
        (lambda seed: [2.0, 1.5, 1.2, 1.0, 1.1 - 0.3 * seed], "it falls with one seed of three"),
    ],
)
def test_who_has_learned_or_learns_no_more_is_not_named(tmp_path, fifths, why):
    assert said(tmp_path, fifths) == [], why


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 19},
        {"base": BASE | {"training": {"patience": 2}}},
        {"outcome": lambda cell: {"status": "diverged", "score": None, "last_score": None}},
        {"outcome": lambda cell: {} if cell.config.seed == 1 else "out of memory"},
    ],
)
def test_runs_that_tell_nothing_are_left_out(tmp_path, changes):
    assert said(tmp_path, lambda seed: STEADY, **changes) == []


def test_points_of_a_grid_have_names_and_broken_records_tell_nothing(tmp_path):
    (text,) = said(tmp_path, lambda seed: STEADY, grid={"prompt.length": [2, 4]})
    assert "plain prompt.length=2 on bundled/sentiment" in text
    assert "plain prompt.length=4 on bundled/sentiment" in text
    for file in (tmp_path / "study").glob("runs/*/metrics.jsonl"):
        file.write_text("{step\n")
    content = study_like(seeds=3, variants={"plain": {}}, grid={"prompt.length": [2, 4]})
    assert still_learning(expand(parse_study(content)), tmp_path / "study") == []
