"""What is in a study's folder, read for a report: runs, scores, and where they belong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from softprompts.errors import RunFolderError, StorageError
from softprompts.lab.analysis.study_statistics import without_task
from softprompts.lab.reports.tabular import Column
from softprompts.lab.studies.summary import grouped, read_cell, read_error, run_folder, summarize
from softprompts.recipes.grid import Cell, expand
from softprompts.recipes.study import StudyConfig, parse_kept_study
from softprompts.storage import entries, is_there, read_record


@final
@dataclass(frozen=True)
class Entry:
    """One variant on one task at one point of the grid, over seeds.

    Attributes:
        line: its line of the summary; for a task of a mixture, with that task's own scores.
        cells: its runs, one per seed.
        label: what tells it apart from the others of its facet.
        part_of: of a task of a mixture, the mixture's label; otherwise empty.
    """

    line: Mapping[str, Any]
    cells: tuple[Cell, ...]
    label: str
    part_of: str = ""

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.line["task"])

    @property
    def variant(self) -> str:
        """The variant's name."""
        return str(self.line["variant"])

    @property
    def num_scored(self) -> int:
        """How many of its runs have a score."""
        return len(self.line["seeds"])

    @property
    def seeds(self) -> str:
        """How many of how many seeds have a score, in words."""
        planned = len(self.cells)
        return str(planned) if self.num_scored == planned else f"{self.num_scored} of {planned}"

    @property
    def place(self) -> dict[str, Any]:
        """The values of `place_columns`."""
        task = f"{self.task} (within {self.part_of})" if self.part_of else self.task
        return {"task": task, "variant": self.variant, **fields_of(self.line["point"])}


@final
@dataclass(frozen=True)
class Facet:
    """Entries that are looked at together, on one axis; the title says what they share."""

    task: str
    title: str
    entries: tuple[Entry, ...]


@final
@dataclass(frozen=True)
class StudyRecord:
    """A study as its folder has it now; `results` and `errors` of runs are by identity.

    Attributes:
        summary: what its finished runs say, made anew from their results.
        entries: every variant, task and point; tasks of a mixture follow their mixture.
    """

    path: Path
    study: StudyConfig
    summary: Mapping[str, Any]
    entries: tuple[Entry, ...]
    results: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, str]

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name or self.path.name

    @property
    def baseline(self) -> str:
        """The variant that the others are compared with."""
        return str(self.summary["baseline"])

    @property
    def num_runs(self) -> int:
        """How many runs the study has."""
        return int(self.summary["num_runs"])

    @property
    def num_finished(self) -> int:
        """How many of them have ended with a result, diverged ones too."""
        return int(self.summary["num_finished"])

    @property
    def whole_entries(self) -> tuple[Entry, ...]:
        """The entries that are runs of their own: all but the tasks of a mixture."""
        return tuple(entry for entry in self.entries if not entry.part_of)

    @property
    def runs(self) -> tuple[tuple[Entry, Cell], ...]:
        """Every run, with its entry."""
        return tuple((entry, cell) for entry in self.whole_entries for cell in entry.cells)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the study's order; a mixture counts as one."""
        return tuple(dict.fromkeys(entry.task for entry in self.whole_entries))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the grid besides the task's name."""
        points = [without_task(entry.line["point"]) for entry in self.entries]
        return tuple(dict.fromkeys(field for point in points for field in point))

    def folder(self, cell: Cell) -> Path:
        """Return the folder of a run."""
        return run_folder(self.path, cell)

    def facets(self, chosen: Sequence[Entry] | None = None) -> tuple[Facet, ...]:
        """Return chosen entries, or all, in groups: by task, and by grid point or by variant.

        Whichever has fewer values makes the groups, so that each group has many rows.
        """
        found = self.entries if chosen is None else chosen
        points = {point_label(entry.line["point"]) for entry in found}
        variants = {entry.variant for entry in found}
        by_point = len(variants) >= len(points)
        groups: dict[tuple[str, str, str], list[Entry]] = {}
        for entry in found:
            point = point_label(entry.line["point"])
            shared, label = (point, entry.variant) if by_point else (entry.variant, point)
            if not by_point and len(variants) == 1:
                shared = ""
            key = (entry.task, f"within {entry.part_of}" * bool(entry.part_of), shared)
            groups.setdefault(key, []).append(replace(entry, label=label or entry.variant))
        return tuple(
            Facet(key[0], ", ".join(filter(None, key)), tuple(of)) for key, of in groups.items()
        )


def read_study(folder: str | Path) -> StudyRecord:
    """Read a study's folder as it is now; nothing in it has to be finished.

    Raises:
        RunFolderError: if it is no study's folder.
        SoftPromptsError: if a file in it is broken, or its study cannot be read.
    """
    path = Path(folder)
    if not is_there(path / "study.json"):
        _refuse(path)
    content = read_record(path / "study.json", ["name", "base"])
    study = parse_kept_study(content, str(path / "study.json"))
    cells = expand(study)
    results = {c.identity: r for c in cells if (r := read_cell(path, c)) is not None}
    errors = {c.identity: e for c in cells if (e := read_error(path, c)) is not None}
    summary = summarize(
        study, cells, lambda c: results.get(c.identity), lambda c: errors.get(c.identity)
    )
    lines = zip(summary["cells"], grouped(cells), strict=True)
    found = tuple(entry for line, group in lines for entry in _entries(line, tuple(group)))
    return StudyRecord(path, study, summary, found, results, errors)


def place_columns(record: StudyRecord) -> tuple[Column, ...]:
    """Return the columns that say where a row belongs: task, variant, and fields of the grid."""
    return (Column("task", "task"), Column("variant", "variant"), *field_columns(record))


def field_columns(record: StudyRecord) -> tuple[Column, ...]:
    """Return the columns of the fields of the grid."""
    return tuple(Column(f"field {name}", name) for name in record.fields)


def fields_of(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `field_columns` for a grid point."""
    return {f"field {name}": shown(value) for name, value in without_task(point).items()}


def point_label(point: Mapping[str, Any]) -> str:
    """Return a grid point in words, without its task.

    Example:
        >>> point_label({"task.name": "rte", "prompt.length": 5, "task.shots": None})
        'prompt.length 5, task.shots null'
    """
    return ", ".join(f"{field} {shown(value)}" for field, value in without_task(point).items())


def shown(value: Any) -> str:
    """Return a value of a recipe as a recipe writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _entries(line: Mapping[str, Any], cells: tuple[Cell, ...]) -> list[Entry]:
    """Return the entry of a line, and those of its own tasks if it is of a mixture."""
    label = ", ".join(filter(None, (line["variant"], point_label(line["point"]))))
    own = [
        Entry({**line, **scores, "task": name}, cells, label, part_of=line["task"])
        for name, scores in line.get("tasks", {}).items()
    ]
    return [Entry(line, cells, label), *own]


def _refuse(path: Path) -> None:
    """Say why a folder is no study's."""
    if not is_there(path):
        raise StorageError(f"{path} could not be read: no such folder.")
    held = entries(path)
    if "config.json" in held:
        raise RunFolderError(
            f"{path} must be a study's folder, but is a run's; see choices and landscape for runs."
        )
    what = f"holds {', '.join(held[:3])}" if held else "is empty"
    raise RunFolderError(f"{path} must be a study's folder, with study.json, but {what}.")
