"""Which trackers runs have, and the journal of a run that passes its metrics on, each line once.

Only lines that are durable are passed on: what a checkpoint does not know is done again after a
kill. How many were is noted before they are passed on, so a kill may lose some there, but doubles
none.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from torch import Tensor

from softprompts.errors import SoftPromptsWarning, StorageError, TrackingError
from softprompts.lab.analysis.study_statistics import without_task
from softprompts.lab.tracking.base import TrackedRun, Tracker, Value
from softprompts.lab.tracking.registry import TRACKERS
from softprompts.recipes.grid import Cell
from softprompts.storage import is_there, read_file, read_record, write_json
from softprompts.training.journal import METRICS, Checkpoint, Journal
from softprompts.training.observer import NO_OBSERVER, RunObserver

NOTE = "tracking.json"
"""In a run's `state/`: what was passed on, and what trackers call the run."""

_EXTRA = ("accelerate", "tensorboard")
"""Packages of the extra `tracking`."""


@final
@dataclass(frozen=True)
class Tracking(RunObserver):
    """Passes metrics of a study's runs on to trackers; see `TrackedRun`. Names are by identity."""

    trackers: tuple[str, ...]
    project: str
    folder: Path
    names: Mapping[str, str]

    def observe(
        self,
        journal: Journal,
        folder: Path,
        about: Mapping[str, Any],
        stack: ExitStack,
        after_commit: Callable[[Callable[[], None]], None] | None = None,
    ) -> Journal:
        """Return a journal whose metrics go to trackers too."""
        name = self.names.get(about["identity"], about["identity"])
        settings = {**flatten(about["config"]), "identity": about["identity"]}
        run = TrackedRun(self.project, name, self.folder, settings, "")
        found = TrackedJournal(journal, folder, self.trackers, run, after_commit is None)
        stack.callback(found.close)
        if after_commit is not None:
            after_commit(found.send)
        return found


def build_tracking(
    trackers: Sequence[str], project: str, folder: Path, cells: Sequence[Cell]
) -> RunObserver:
    """Return what passes metrics of runs on, if there are trackers; see `Tracking`.

    Raises:
        UnknownNameError: if there is no such tracker.
        TrackingError: if what a tracker needs is not installed.
    """
    for name in trackers:
        for needed in TRACKERS.load(name).packages:
            if importlib.util.find_spec(needed) is None:
                what = "softprompts with its extra `tracking`" if needed in _EXTRA else needed
                raise TrackingError(
                    f"tracker {name} must have the package {needed}, but it is not installed: "
                    f"install {what}."
                )
    if not trackers:
        return NO_OBSERVER
    names = {cell.identity: _name(cell) for cell in cells}
    return Tracking(tuple(dict.fromkeys(trackers)), project, folder.absolute(), names)


def _name(cell: Cell) -> str:
    """Return what a run is called: a relative path that stays where it begins."""
    point = [f"{key}={value}" for key, value in without_task(cell.point).items()]
    parts = [cell.variant, *cell.task.split("/"), *point, f"seed-{cell.config.seed}"]
    return "/".join(re.sub(r"^\.+|[^\w.=+-]+", "-", part) or "-" for part in parts)


@final
class TrackedJournal(Journal):
    """Passes durable lines of another journal on to trackers.

    Lines that are not durable at save, when `inner` has saved, are so when somebody calls `send`.
    """

    def __init__(
        self,
        inner: Journal,
        path: Path,
        trackers: Sequence[str],
        run: TrackedRun,
        is_durable_at_save: bool,
    ) -> None:
        self._inner, self._path, self._is_durable_at_save = inner, path, is_durable_at_save
        self._note = path / "state" / NOTE
        note = read_record(self._note, ["num_lines", "keys"]) if is_there(self._note) else {}
        self._num_sent, self._num_durable = int(note.get("num_lines", 0)), 0
        self._waiting: list[Mapping[str, Any]] = []
        self._keys: dict[str, str] = dict(note.get("keys", {}))
        self._trackers: dict[str, Tracker] = {}

        def start(name: str) -> None:
            tracker = TRACKERS.load(name)()
            self._keys[name] = tracker.start(replace(run, key=self._keys.get(name, "")))
            self._trackers[name] = tracker

        _each(trackers, start)
        self._write_note()

    def restore(self) -> Checkpoint | None:
        """Return where the run stood, and pass on what is durable and was not passed on."""
        found, path = self._inner.restore(), self._path / METRICS
        text = read_file(path).decode() if path.exists() else ""
        self._num_durable, self._waiting = 0, [json.loads(line) for line in text.splitlines()]
        self.send()
        return found

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line of metrics; it is passed on when it is durable."""
        self._inner.log(record)
        self._waiting.append(dict(record))

    def show(self, text: str) -> None:
        """Add text for reading."""
        self._inner.show(text)

    def save(self, checkpoint: Checkpoint) -> None:
        """Save, and pass on what is durable by that."""
        self._inner.save(checkpoint)
        if self._is_durable_at_save:
            self.send()

    def finish(
        self, tensors: Mapping[str, Tensor], about: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        """Finish, pass the rest on, and let trackers go."""
        self._inner.finish(tensors, about, result)
        keys = ("score", "last_score", "majority")
        self._waiting.append(
            {"step": result["steps"], "split": result["split"], **{k: result[k] for k in keys}}
        )
        self.send()
        self._let_go(is_over=True)

    def send(self) -> None:
        """Pass on the lines so far, which are durable; those of an earlier process are not sent."""
        first = self._num_durable
        self._num_durable += len(self._waiting)
        lines = [
            (int(record["step"]), numbers(record))
            for place, record in enumerate(self._waiting, start=first)
            if place >= self._num_sent
        ]
        self._waiting = []
        if not lines:
            return
        self._num_sent = self._num_durable
        self._write_note()
        _each(self._trackers, lambda name: self._trackers[name].log(lines))

    def _write_note(self) -> None:
        with suppress(StorageError):  # a full disk shows where it matters
            write_json(self._note, {"num_lines": self._num_sent, "keys": self._keys})

    def close(self) -> None:
        """Let trackers go of a run that has no result yet; they have, of one that has."""
        self._let_go(is_over=False)

    def _let_go(self, is_over: bool) -> None:
        _each(self._trackers, lambda name: self._trackers[name].finish(is_over))
        self._trackers.clear()


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of metrics by name; a split or task is in front of the name.

    Example:
        >>> numbers({"step": 3, "split": "held_out", "score": 0.5, "tasks": {"a": {"loss": 1.0}}})
        {'held_out/score': 0.5, 'held_out/tasks/a/loss': 1.0}
    """
    start = f"{record['split']}/" if isinstance(record.get("split"), str) else ""
    return {
        f"{start}{key}": float(value)
        for key, value in flatten(record, "/").items()
        if isinstance(value, int | float) and key != "step" and math.isfinite(value)
    }


def flatten(config: Mapping[str, Any], point: str = ".", start: str = "") -> dict[str, Value]:
    """Return nested settings by dotted field; what is null is left out.

    Example:
        >>> flatten({"a": {"b": 1, "c": None}, "d": [2]})
        {'a.b': 1, 'd.0': 2}
    """
    found: dict[str, Value] = {}
    for key, value in config.items():
        if isinstance(value, list):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, Mapping):
            found |= flatten(value, point, f"{start}{key}{point}")
        elif value is not None:
            found[f"{start}{key}"] = value
    return found


_failed: set[str] = set()
"""Trackers that failed in this process: they are left out from then on."""


def _each(names: Iterable[str], do: Callable[[str], None]) -> None:
    """Do something with trackers; one that fails is left out from then on, and that is said."""
    for name in names:
        if name in _failed:
            continue
        try:
            do(name)
        except Exception as error:
            _failed.add(name)
            text = " ".join(str(error).split())
            warnings.warn(
                f"tracker {name} failed and is left out from here on, while training goes on: "
                f"{type(error).__name__}: {text}",
                SoftPromptsWarning,
                stacklevel=2,
            )
