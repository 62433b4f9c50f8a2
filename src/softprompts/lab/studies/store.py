"""A study's folder: finished runs by identity, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any, final

from softprompts.errors import RunFolderError
from softprompts.lab.studies.planning import Pack, Plan, extend
from softprompts.lab.studies.summary import error_file, read_cell, read_error, run_folder, summarize
from softprompts.locks import lock
from softprompts.recipes.grid import Cell
from softprompts.recipes.study import StudyConfig, with_kept_unit
from softprompts.storage import (
    entries,
    is_there,
    make_folder,
    read_record,
    remove_file,
    remove_parts,
    write_json,
)

_PARTS = {"runs", "errors", "packs", "packs.json"}
"""What workers make again where somebody removes the folder under them: it is a study's still."""


@final
class Store:
    """The folder of a study: `study.json`, `packs.json`, `runs/<identity>/` and `summary.json`.

    Beside them lie `packs/<name>/`, where interrupted packs have their checkpoints, and
    `errors/<identity>.json`, why a run failed. Several processes may use the folder at a time.

    A study that grew, by more seeds or variants, keeps its folder and its finished runs; a study
    of another name does not get in.

    Raises:
        RunFolderError: if the folder belongs to another study or holds other files.
        StorageError: if it is no folder.
    """

    def __init__(self, path: Path, study: StudyConfig, cells: Sequence[Cell]) -> None:
        self.path, self.study, self.cells = path, study, tuple(cells)
        self._plan_file = path / "packs.json"
        if not is_there(path):
            return
        others = entries(path)
        if "study.json" not in others:
            if set(others) - _PARTS:
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
        """Create the folder and say whose it is, first of all: another is refused."""
        make_folder(self.path)
        with self._alone():
            for folder in (self.path, self.path / "errors"):
                remove_parts(folder)
            kept = with_kept_unit(self.study)
            write_json(self.path / "study.json", kept.model_dump(mode="json"))
        make_folder(self.path / "runs")

    def plan(self, most_runs: Callable[[Cell], int], device: str | None = None) -> Plan:
        """Return the packs of the study, as `extend` makes them; those from before stay.

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
                device=device,
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
            packs = [replace(p, is_apart=p.is_apart or p.runs == pack.runs) for p in plan.packs]
            write_json(self._plan_file, replace(plan, packs=tuple(packs)).to_json())
        remove_file(self.pack_folder(pack) / "checkpoint.safetensors")

    def pack_folder(self, pack: Pack) -> Path:
        """Return where a pack checkpoints."""
        return self.path / "packs" / pack.name

    def fail(self, cell: Cell, error: str) -> None:
        """Keep why a run failed."""
        make_folder(self.path / "errors", is_inner=True)
        with self._alone():
            about = {"identity": cell.identity, "error": error}
            write_json(error_file(self.path, cell), about)

    def forgive(self, cell: Cell) -> None:
        """Forget why a run failed before."""
        remove_file(error_file(self.path, cell))

    def error(self, cell: Cell) -> str | None:
        """Return why a run failed, or `None` where it did not; a result makes up for it."""
        return read_error(self.path, cell)

    def failures(self) -> dict[str, int]:
        """Return when each failed run failed, by identity, in nanoseconds."""
        found = {}
        for cell in self.cells:
            with suppress(OSError):
                found[cell.identity] = error_file(self.path, cell).stat().st_mtime_ns
        return found

    def folder(self, cell: Cell) -> Path:
        """Return the folder of a run."""
        return run_folder(self.path, cell)

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """Return a run's result, or `None` while it is not finished."""
        return read_cell(self.path, cell)

    def write_summary(self) -> dict[str, Any]:
        """Write and return what the finished runs say; see `summarize`."""
        with self._alone():
            summary = summarize(self.study, self.cells, self.result, self.error)
            write_json(self.path / "summary.json", summary)
        return summary

    def _alone(self) -> BufferedIOBase:
        """Keep other processes from writing the study's own files, until it is closed."""
        return lock(self.path / ".lock", should_wait=True)

    def _read_plan(self) -> Plan | None:
        if not is_there(self._plan_file):
            return None
        data = read_record(self._plan_file, ["pack_size", "packs"])
        return Plan.from_json(data, str(self._plan_file))
