"""Values in a run's files that cannot be: the file, the field and the value are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from study_material import BASE, make_study, study_like

from softprompts.errors import RunFolderError
from softprompts.lab.reports.report import write_report

WRONG: list[tuple[str, Any, str]] = [
    *((name, "x", "a number") for name in ("score", "last_score", "held_out_score", "majority")),
    *((name, "x", "a whole number") for name in ("steps", "peak_bytes", "selected_step")),
    *((name, "x", "a number") for name in ("seconds", "examples_per_second")),
    *((name, float("nan"), "a finite number") for name in ("score", "last_score", "seconds")),
    ("score", None, "a number"),
    ("score", True, "a number"),
    ("score", 1e30, "at most 1"),
    ("score", -1, "at least 0"),
    ("last_score", [0.5], "a number"),
    ("majority", 7, "at most 1"),
    ("num_items", -1, "at least 0"),
    ("num_items", 1.5, "a whole number"),
    ("status", "x", "one of finished, diverged"),
    ("metric", 5, "text"),
    ("num_cut", 3, "a mapping"),
    ("tasks", [], "a mapping"),
    ("answers", "1", "a digit for each of the "),
]


@pytest.mark.parametrize(("name", "value", "wanted"), WRONG)
def test_a_wrong_value_of_a_result_is_named(
    tmp_path: Path, name: str, value: Any, wanted: str
) -> None:
    def one_wrong(cell: Any) -> dict[str, Any]:
        return {name: value} if cell.config.seed == 3 else {}

    study = make_study(tmp_path / "study", study_like(), one_wrong)
    with pytest.raises(RunFolderError) as caught:
        write_report(study)
    assert f"result.json: `{name}` must be {wanted}" in str(caught.value)
    assert str(study / "runs") in str(caught.value)


def test_wrong_versions_are_named(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", study_like())
    path = sorted((study / "runs").iterdir())[0] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "versions": 5}))
    with pytest.raises(RunFolderError, match=r"config\.json: `versions` must be a mapping.* is 5"):
        write_report(study)


def test_a_mixture_without_its_tasks_is_named(tmp_path: Path) -> None:
    tasks = {"one": {"name": "bundled/sentiment"}, "two": {"name": "bundled/entailment"}}
    base = {key: value for key, value in BASE.items() if key != "task"}
    study = make_study(tmp_path / "study", study_like(base={**base, "mixture": {"tasks": tasks}}))
    with pytest.raises(
        RunFolderError, match=r"result\.json: `tasks` must be one, two, but .* none"
    ):
        write_report(study)
