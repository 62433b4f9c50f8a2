"""A study's folder: finished runs by identity, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, final

from softprompts.analysis.reading import statistics_of
from softprompts.analysis.robustness import Default, robustness_of
from softprompts.analysis.scores import DIVERGED, FAILED, UNFINISHED
from softprompts.analysis.statistics import spread
from softprompts.errors import RunFolderError
from softprompts.recipes.defaults import value_and_default
from softprompts.recipes.study import StudyConfig, merged
from softprompts.storage import (
    entries,
    is_there,
    make_folder,
    read_record,
    remove_file,
    remove_parts,
    write_json,
)
from softprompts.studies.grid import Cell
from softprompts.studies.planning import Pack, Plan, extend
from softprompts.training.finished import read_result
from softprompts.training.journal import lock


@final
class Store:
    """The folder of a study: `study.json`, `packs.json`, `runs/<identity>/` and `summary.json`.

    Beside them lie `packs/<name>/`, where interrupted packs have their checkpoints, and
    `errors/<identity>.json`, why a run failed. Several processes may use the folder at a time.

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
        with self._alone():
            for folder in (self.path, self.path / "errors"):
                remove_parts(folder)
            write_json(self.path / "study.json", self.study.model_dump(mode="json"))

    def plan(self, most_runs: Callable[[Cell], int]) -> Plan:
        """Return the packs of the study; those that were made before stay.

        Args:
            most_runs: how many runs like a cell's fit in memory.

        Raises:
            StorageError: if `packs.json` is broken or cannot be written.
        """
        with self._alone():
            before = self._read_plan()
            plan = extend(
                before,
                self.cells,
                self.study.pack_size,
                has_begun=lambda pack: is_there(self.pack_folder(pack)),
                most_runs=most_runs,
            )
            if plan != before:
                write_json(self._plan_file, plan.to_json())
        return plan

    def set_apart(self, pack: Pack) -> None:
        """Note that the runs of a pack are to be trained one by one, from their beginning.

        Raises:
            StorageError: if `packs.json` is broken or cannot be written.
        """
        with self._alone():
            plan = self._read_plan()
            assert plan is not None
            packs = tuple(
                replace(one, is_apart=True) if one.runs == pack.runs else one for one in plan.packs
            )
            write_json(self._plan_file, replace(plan, packs=packs).to_json())
        remove_file(self.pack_folder(pack) / "checkpoint.safetensors")

    def pack_folder(self, pack: Pack) -> Path:
        """Return where a pack checkpoints."""
        return self.path / "packs" / pack.name

    def fail(self, cell: Cell, error: str) -> None:
        """Keep why a run failed."""
        make_folder(self.path / "errors")
        with self._alone():
            about = {"identity": cell.identity, "error": error}
            write_json(self._error_file(cell), about)

    def forgive(self, cell: Cell) -> None:
        """Forget why a run failed before."""
        remove_file(self._error_file(cell))

    def error(self, cell: Cell) -> str | None:
        """Return why a run failed, or `None` where it did not; a result makes up for it."""
        path = self._error_file(cell)
        if not is_there(path) or is_there(self.folder(cell) / "result.json"):
            return None
        return str(read_record(path, ["error"])["error"])

    def failures(self) -> dict[str, int]:
        """Return when each failed run failed, by identity, in nanoseconds."""
        found = {}
        for cell in self.cells:
            with suppress(OSError):
                found[cell.identity] = self._error_file(cell).stat().st_mtime_ns
        return found

    def folder(self, cell: Cell) -> Path:
        """Return the folder of a run."""
        return self.path / "runs" / cell.identity

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """Return a run's result, or `None` while it is not finished."""
        folder = self.folder(cell)
        return read_result(folder, cell.identity) if is_there(folder / "result.json") else None

    def write_summary(self) -> dict[str, Any]:
        """Write and return what the finished runs say; see `summarize`."""
        with self._alone():
            summary = self.summarize()
            write_json(self.path / "summary.json", summary)
        return summary

    def summarize(self) -> dict[str, Any]:
        """Return the summary.

        Returns:
            `name`, `num_runs`, `num_finished`, and `cells`: per variant, task and grid point the
            seeds, scores, mean, standard deviation, extremes, interval, majority score, number of
            items, seconds, and how many runs diverged, failed or are missing, with `missing` naming
            their seeds; of a mixture also `tasks`, with scores and majority of each. Then
            `baseline`, `comparisons` with it and `averages` over tasks, as `statistics_of` has
            them, and `robustness`, the curves of swept fields, as `robustness_of` has it.
            Nothing in it depends on when or in how many sittings the runs were made, but `seconds`.
        """
        groups: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.variant, cell.task, repr(cell.point)), []).append(cell)
        lines = [self._line(cells) for cells in groups.values()]
        return {
            "name": self.study.name,
            "num_runs": len(self.cells),
            "num_finished": sum(len(line["seeds"]) + line["num_diverged"] for line in lines),
            "cells": lines,
            **statistics_of(lines, self.study.baseline or next(iter(self.study.variants))),
            "robustness": robustness_of(lines, self._default),
        }

    def _default(self, line: Mapping[str, Any], field: str) -> Default:
        """Return what a field of a line's runs is where the recipe leaves it out."""
        run = merged(self.study, line["variant"], line["point"])
        own, default = value_and_default(run, field)
        return Default(default, is_own=own == default)

    def _line(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Summarize the seeds of one variant, task and point."""
        results = [(cell, self.result(cell)) for cell in cells]
        done = [(cell, r) for cell, r in results if r is not None and r["status"] == "finished"]
        any_result = next((r for _, r in results if r is not None), None)
        failed = [text for cell in cells if (text := self.error(cell)) is not None]
        line = {
            "variant": cells[0].variant,
            "task": cells[0].task,
            "point": cells[0].point,
            "seeds": [cell.config.seed for cell, _ in done],
            **asdict(spread([r["score"] for _, r in done])),
            "last": asdict(spread([r["last_score"] for _, r in done])),
            "held_out": asdict(spread(_held_out([r for _, r in done]))),
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
                {"seed": cell.config.seed, "reason": _reason(r, self.error(cell))}
                for cell, r in results
                if r is None or r["status"] != "finished"
            ],
        }
        if cells[0].config.mixture is not None:
            line["tasks"] = _by_task([r for _, r in done], any_result)
        return line

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from writing the study's own files meanwhile."""
        with lock(self.path / ".lock", should_wait=True):
            yield

    def _read_plan(self) -> Plan | None:
        if not is_there(self._plan_file):
            return None
        data = read_record(self._plan_file, ["pack_size", "packs"])
        return Plan.from_json(data, str(self._plan_file))

    @property
    def _plan_file(self) -> Path:
        return self.path / "packs.json"

    def _error_file(self, cell: Cell) -> Path:
        return self.path / "errors" / f"{cell.identity}.json"


def _reason(result: Mapping[str, Any] | None, error: str | None) -> str:
    """Return why a run has no score."""
    if result is not None:
        return DIVERGED
    return UNFINISHED if error is None else FAILED


def _held_out(results: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the scores on held-out rows of the runs that have one."""
    scores = (result.get("held_out_score") for result in results)
    return [score for score in scores if score is not None]


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
