"""A study that tunes its learning rate, and what its folder says, for the tests of tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cli_material import files_task, rows, write_rows

from softprompts.cli.main import main

RATE = "training.learning_rate"
VALUES = [0.001, 0.03, 0.3, 1.0]
"""Four candidates: rungs of 4 and 2, with 2 and 6 updates."""

METHODS = {"plain": "prompt-tuning", "residual": "residual", "bare": "head-only"}


def tuning_study(backbone: Path, data_dir: Path) -> dict[str, Any]:
    """Return two variants on rows that are written, with enough of them to tell rates apart."""
    write_rows(data_dir / "train.jsonl", rows(0, 60))
    write_rows(data_dir / "val.jsonl", rows(100, 124))
    training = {
        "steps": 6,
        "batch_size": 8,
        "readout_learning_rate": 0.1,
        "num_evaluations": 3,
        "held_out_fraction": 0.4,
    }
    return {
        "name": "small",
        "base": {
            "backbone": {"name": str(backbone)},
            "task": files_task(data_dir),
            "prompt": {"length": 4, "unit": "absolute"},
            "training": training,
        },
        "variants": {"plain": {}, "residual": {"prompt.method": "residual"}},
        "seeds": 2,
        "tune": {"field": RATE, "values": VALUES},
    }


def tuned(capsys: Any, path: str, out: Path, *more: str) -> dict[str, Any]:
    """Run a study without a report and return what it printed as JSON."""
    capsys.readouterr()
    assert main(["study", path, "--out", str(out), "--json", "--no-report", *more]) == 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found


def chosen(out: Path) -> dict[str, Any]:
    """Return what a study's folder keeps of tuning."""
    found: dict[str, Any] = json.loads((out / "tuning" / "chosen.json").read_text())
    return found


def runs_of(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return configuration and result of every run of a study."""
    return [
        (
            json.loads((run / "config.json").read_text())["config"],
            json.loads((run / "result.json").read_text()),
        )
        for run in sorted((folder / "runs").iterdir())
    ]


def scores(summary: dict[str, Any]) -> list[list[float]]:
    """Return the reported scores of every cell."""
    return [line["scores"] for line in summary["cells"]]
