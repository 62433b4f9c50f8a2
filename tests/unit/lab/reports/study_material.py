"""Studies that look as if they had been run: folders with results, records and errors."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from softprompts.recipes.grid import Cell, expand
from softprompts.recipes.parsing import with_unit
from softprompts.recipes.study import parse_study

BASE: dict[str, Any] = {
    "backbone": {"name": "minilm"},
    "task": {"name": "bundled/sentiment"},
    "prompt": {"method": "prompt-tuning", "length": 4},
    "training": {"steps": 20},
}
SMALL: dict[str, Any] = {
    "name": "small",
    "description": "Two variants & five seeds.",
    "base": BASE,
    "variants": {"plain": {}, "residual": {"prompt.method": "residual"}},
    "seeds": 5,
}

Outcome = Callable[[Cell], dict[str, Any] | str | None]
"""From a run to what changes in its result, to why it failed, or to `None` while it is not run."""


def study_like(**changes: Any) -> dict[str, Any]:
    """Return the small study with some keys changed."""
    return {**copy.deepcopy(SMALL), **changes}


def score_of(cell: Cell) -> float:
    """Return a score that depends on variant and seed."""
    shift = {"plain": 0.0, "residual": 0.08}.get(cell.variant, 0.02)
    return 0.6 + shift + 0.03 * math.sin(3.7 * cell.config.seed + shift)


def finished(cell: Cell) -> dict[str, Any]:
    """Say that a run finished, with `score_of`."""
    return {}


def make_study(folder: Path, content: dict[str, Any], outcome: Outcome = finished) -> Path:
    """Write a study's folder as if its runs had been trained.

    Args:
        folder: where.
        content: the study.
        outcome: how each run ended.
    """
    study = parse_study(content)
    (folder / "runs").mkdir(parents=True)
    content = study.model_dump(mode="json")
    content["base"] = with_unit(content["base"], "relative")
    (folder / "study.json").write_text(json.dumps(content))
    for cell in expand(study):
        found = outcome(cell)
        if isinstance(found, str):
            (folder / "errors").mkdir(exist_ok=True)
            about = {"identity": cell.identity, "error": found}
            (folder / "errors" / f"{cell.identity}.json").write_text(json.dumps(about))
        elif found is not None:
            write_run(folder / "runs" / cell.identity, cell, found)
    return folder


def write_run(folder: Path, cell: Cell, changes: dict[str, Any]) -> None:
    """Write the folder of a finished run."""
    folder.mkdir()
    score, steps = score_of(cell), cell.config.training.steps or 20
    choices = changes.pop("log", {})
    about = {
        "identity": cell.identity,
        "config": cell.config.model_dump(mode="json"),
        "dtype": "float32",
        "versions": {"torch": "2.13", "transformers": "5.23", "softprompts": "0.1.0"},
    }
    (folder / "config.json").write_text(json.dumps(about))
    records = []
    for step in range(1, steps + 1):
        records.append({"step": step, "loss": 1.0 / step + 0.01 * cell.config.seed, **choices})
        if step % (steps // 2) == 0:
            held = {"split": "held_out", "score": score - 1 / step}
            records.append({"step": step, **held, "loss": 0.5, **choices})
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    (folder / "metrics.jsonl").write_text(text)
    result = {
        "status": "finished",
        "metric": "accuracy",
        "score": score,
        "last_score": score - 0.01,
        "held_out_score": score - 0.02,
        "choices": choices,
        "majority": 0.5,
        "num_items": 360,
        "split": "validation",
        "steps": steps,
        "selected_step": steps,
        "divergence": None,
        "seconds": 2.5,
        "examples_per_second": 100.0,
        "peak_bytes": 2**30,
        "trainable_parameters": 4610,
        "seed": cell.config.seed,
        "identity": cell.identity,
        "num_cut": {"train": 0},
    }
    (folder / "result.json").write_text(json.dumps({**result, **changes}))
