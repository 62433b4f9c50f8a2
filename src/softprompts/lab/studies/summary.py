"""What the finished runs of a study say together; read without what trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from softprompts.errors import RunFolderError
from softprompts.lab.analysis.robustness import Default, robustness_of
from softprompts.lab.analysis.scores import DIVERGED, FAILED, UNFINISHED
from softprompts.lab.analysis.statistics import spread
from softprompts.lab.analysis.study_statistics import statistics_of
from softprompts.lab.studies.looks import look_at, looks_of
from softprompts.recipes.grid import Cell
from softprompts.recipes.resolving import value_and_default
from softprompts.recipes.study import StudyConfig, merged
from softprompts.storage import is_there, read_record
from softprompts.training.finished import read_result

_SCORED = ("majority", "metric", "num_items", "split")

Result = Callable[[Cell], Mapping[str, Any] | None]
"""Returns a run's result, or `None` while it is not finished."""

Failure = Callable[[Cell], str | None]
"""Returns why a run failed, or `None` where it did not."""


def run_folder(study: Path, cell: Cell) -> Path:
    """Return the folder of a run in a study's folder."""
    return study / "runs" / cell.identity


def error_file(study: Path, cell: Cell) -> Path:
    """Return where a study's folder keeps why a run failed."""
    return study / "errors" / f"{cell.identity}.json"


def read_cell(study: Path, cell: Cell) -> dict[str, Any] | None:
    """Return the content of a run's `result.json`, or `None` while it is not finished.

    Raises:
        StorageError: if the result is broken or of another run.
        RunFolderError: if a value in it is wrong.
    """
    folder = run_folder(study, cell)
    path = folder / "result.json"
    if not is_there(path):
        return None
    result = read_result(folder, cell.identity)
    tasks, own = cell.config.tasks, result.get("tasks") or {}
    if cell.config.mixture is not None and set(own) != set(tasks):
        raise RunFolderError(
            f"{path}: `tasks` must be {', '.join(tasks)}, but are {', '.join(own) or 'none'}."
        )
    return result


def read_error(study: Path, cell: Cell) -> str | None:
    """Return why a run failed, or `None` where it did not; a result makes up for a failure.

    Raises:
        StorageError: if the file is broken.
    """
    path = error_file(study, cell)
    if not is_there(path) or is_there(run_folder(study, cell) / "result.json"):
        return None
    return str(read_record(path, ["error"])["error"])


def summarize(
    study: StudyConfig, cells: Sequence[Cell], result: Result, error: Failure
) -> dict[str, Any]:
    """Return the content of `summary.json`.

    Returns:
        `name`, `num_runs`, `num_finished`, and `cells`: per variant, task and grid point the
        seeds, scores, mean, standard deviation, extremes, interval, majority score, number of
        items, which of them each seed answered rightly (`answers`, where the score is their share),
        seconds, and how many runs diverged, failed or are missing, with `missing` naming
        their seeds; of a mixture also `tasks`, with scores and majority of each. Then
        `baseline`, `comparisons` with it and `averages` over tasks, as `statistics_of` has
        them, `robustness`, the curves of swept fields, as `robustness_of` has it, and where seeds
        are added `looks`, as `look_at` has it. Nothing in it depends on when or in how many calls
        the runs were made, but `seconds`.
    """
    lines = [_line(group, result, error) for group in grouped(cells)]
    seen = look_at(study, lines)

    def default(line: Mapping[str, Any], field: str) -> Default:
        run = merged(study, line["variant"], line["point"])
        own, usual = value_and_default(run, field)
        return Default(usual, is_own=own == usual)

    return {
        "name": study.name,
        "num_runs": len(cells),
        "num_finished": sum(len(line["seeds"]) + line["num_diverged"] for line in lines),
        "cells": lines,
        **statistics_of(lines, study.baseline or next(iter(study.variants)), looks_of(study)),
        "robustness": robustness_of(lines, default),
        **({} if seen is None else {"looks": seen}),
    }


def grouped(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the runs of each variant, task and grid point, which differ in their seeds."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.variant, cell.task, repr(cell.point)), []).append(cell)
    return list(groups.values())


def _line(cells: Sequence[Cell], result: Result, error: Failure) -> dict[str, Any]:
    results = [(cell, result(cell)) for cell in cells]
    ended = [r for _, r in results if r is not None]
    done = [(cell, r) for cell, r in results if r is not None and r["status"] == "finished"]
    any_result = ended[0] if ended else {}
    failed = [text for cell in cells if (text := error(cell)) is not None]
    line = {
        "variant": cells[0].variant,
        "task": cells[0].task,
        "point": cells[0].point,
        "seeds": [cell.config.seed for cell, _ in done],
        **asdict(spread([r["score"] for _, r in done])),
        "last": asdict(spread([r["last_score"] for _, r in done])),
        "held_out": asdict(
            spread([s for _, r in done if (s := r.get("held_out_score")) is not None])
        ),
        **{key: any_result.get(key) for key in _SCORED},
        **_answers([r for _, r in done]),
        "updates": max((r["steps"] for _, r in done), default=None),
        "trainable_parameters": any_result.get("trainable_parameters"),
        "seconds": sum(r["seconds"] for r in ended),
        "num_cut": any_result.get("num_cut"),
        "num_diverged": sum(r["status"] == "diverged" for r in ended),
        "num_failed": len(failed),
        "num_missing": len(cells) - len(ended) - len(failed),
        "errors": sorted(set(failed)),
        "missing": [
            {"seed": cell.config.seed, "reason": _reason(r, error(cell))}
            for cell, r in results
            if r is None or r["status"] != "finished"
        ],
    }
    if cells[0].config.mixture is not None:
        line["tasks"] = _by_task([r for _, r in done], any_result)
    return line


def _answers(results: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return which reported rows each seed answered rightly, where all runs say so."""
    found = [r.get("answers") for r in results]
    return {"answers": [str(one) for one in found]} if found and all(found) else {}


def _reason(result: Mapping[str, Any] | None, error: str | None) -> str:
    if result is not None:
        return DIVERGED
    return UNFINISHED if error is None else FAILED


def _by_task(results: Sequence[Mapping[str, Any]], any_result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {
            **asdict(spread([r["tasks"][name]["score"] for r in results])),
            "last": asdict(spread([r["tasks"][name]["last_score"] for r in results])),
            **{key: first[key] for key in _SCORED},
        }
        for name, first in any_result.get("tasks", {}).items()
    }
