"""A study's folder: finished runs by identity, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from softprompts.analysis.reading import statistics_of
from softprompts.analysis.scores import DIVERGED, FAILED, UNFINISHED
from softprompts.analysis.statistics import spread
from softprompts.errors import RunFolderError
from softprompts.recipes.study import StudyConfig
from softprompts.storage import entries, is_there, make_folder, read_record, write_json
from softprompts.studies.grid import Cell
from softprompts.training.finished import read_result


@final
class Store:
    """The folder of a study: `study.json`, `runs/<identity>/` and `summary.json`.

    A study that grew, by more seeds or variants, keeps its folder and its finished runs; a study
    of another name does not get in.

    Args:
        path: the folder.
        study: the study.
        cells: its runs.

    Raises:
        RunFolderError: if the folder belongs to another study or holds other files.
        StorageError: if it is no folder.
    """

    def __init__(self, path: Path, study: StudyConfig, cells: Sequence[Cell]) -> None:
        self.path, self.study, self.cells = path, study, tuple(cells)
        if not is_there(path):
            return
        others = entries(path)
        if "study.json" not in others:
            if others:
                held = ", ".join(others[:3])
                raise RunFolderError(
                    f"{path} must be empty or the study's folder, but holds {held}."
                )
            return
        found = read_record(path / "study.json", ["name"])["name"]
        if found != study.name:
            raise RunFolderError(
                f"{path} must belong to study {study.name!r}, but belongs to {found!r}. Choose "
                "another folder."
            )

    def open(self) -> None:
        """Create the folder and say whose it is."""
        make_folder(self.path / "runs")
        write_json(self.path / "study.json", self.study.model_dump(mode="json"))

    def folder(self, cell: Cell) -> Path:
        """Return the folder of a run."""
        return self.path / "runs" / cell.identity

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """Return a run's result, or `None` while it is not finished."""
        folder = self.folder(cell)
        return read_result(folder, cell.identity) if is_there(folder / "result.json") else None

    def write_summary(self, errors: Mapping[str, str]) -> dict[str, Any]:
        """Write and return what the finished runs say; see `summarize`."""
        summary = self.summarize(errors)
        write_json(self.path / "summary.json", summary)
        return summary

    def summarize(self, errors: Mapping[str, str]) -> dict[str, Any]:
        """Return the summary.

        Args:
            errors: error by identity, of runs that failed.

        Returns:
            `name`, `num_runs`, `num_finished`, and `cells`: per variant, task and grid point the
            seeds, scores, mean, standard deviation, extremes, interval, majority score, number of
            items, seconds, and how many runs diverged, failed or are missing, with `missing` naming
            their seeds; of a mixture also `tasks`, with scores and majority of each. Then
            `baseline`, `comparisons` with it and `averages` over tasks, as `statistics_of` has
            them. Nothing in it depends on when or in how many sittings the runs were made, but
            `seconds`.
        """
        groups: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.variant, cell.task, repr(cell.point)), []).append(cell)
        lines = [self._line(cells, errors) for cells in groups.values()]
        return {
            "name": self.study.name,
            "num_runs": len(self.cells),
            "num_finished": sum(len(line["seeds"]) + line["num_diverged"] for line in lines),
            "cells": lines,
            **statistics_of(lines, self.study.baseline or next(iter(self.study.variants))),
        }

    def _line(self, cells: Sequence[Cell], errors: Mapping[str, str]) -> dict[str, Any]:
        """Summarize the seeds of one variant, task and point."""
        results = [(cell, self.result(cell)) for cell in cells]
        done = [(cell, r) for cell, r in results if r is not None and r["status"] == "finished"]
        any_result = next((r for _, r in results if r is not None), None)
        failed = [errors[cell.identity] for cell, r in results if cell.identity in errors]
        line = {
            "variant": cells[0].variant,
            "task": cells[0].task,
            "point": cells[0].point,
            "seeds": [cell.config.seed for cell, _ in done],
            **asdict(spread([r["score"] for _, r in done])),
            "last": asdict(spread([r["last_score"] for _, r in done])),
            "majority": any_result["majority"] if any_result else None,
            "metric": any_result["metric"] if any_result else None,
            "num_items": any_result["num_items"] if any_result else None,
            "split": any_result["split"] if any_result else None,
            "updates": max((r["steps"] for _, r in done), default=None),
            "trainable_parameters": any_result["trainable_parameters"] if any_result else None,
            "seconds": sum(r["seconds"] for _, r in results if r is not None),
            "num_cut": any_result["num_cut"] if any_result else None,
            "num_diverged": sum(r is not None and r["status"] == "diverged" for _, r in results),
            "num_failed": len(failed),
            "num_missing": sum(r is None for _, r in results) - len(failed),
            "errors": sorted(set(failed)),
            "missing": [
                {"seed": cell.config.seed, "reason": _reason(cell, r, errors)}
                for cell, r in results
                if r is None or r["status"] != "finished"
            ],
        }
        if cells[0].config.mixture is not None:
            line["tasks"] = _by_task([r for _, r in done], any_result)
        return line


def _reason(cell: Cell, result: Mapping[str, Any] | None, errors: Mapping[str, str]) -> str:
    """Return why a run has no score."""
    if result is not None:
        return DIVERGED
    return FAILED if cell.identity in errors else UNFINISHED


def _by_task(
    results: Sequence[Mapping[str, Any]], any_result: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Summarize the seeds of each task of a mixture."""
    about = ("majority", "metric", "num_items", "split")
    return {
        name: {
            **asdict(spread([r["tasks"][name]["score"] for r in results])),
            "last": asdict(spread([r["tasks"][name]["last_score"] for r in results])),
            **{key: first[key] for key in about},
        }
        for name, first in (any_result["tasks"] if any_result else {}).items()
    }
