"""Which trackers runs have, and what they are called there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from softprompts.errors import TrackingError
from softprompts.lab.analysis.study_statistics import without_task
from softprompts.lab.tracking.base import TrackedRun
from softprompts.lab.tracking.journal import TrackedJournal, flatten
from softprompts.lab.tracking.registry import TRACKERS
from softprompts.recipes.grid import Cell
from softprompts.training.journal import Journal
from softprompts.training.observer import RunObserver

_EXTRA = ("accelerate", "tensorboard")
"""Packages of the extra `tracking`."""


@final
@dataclass(frozen=True)
class Tracking(RunObserver):
    """Passes metrics of runs on to trackers, if there are any.

    Attributes:
        trackers: their registry names.
        project: what the study is called.
        folder: where local files of trackers go.
        names: what runs are called, by identity.
    """

    trackers: tuple[str, ...] = ()
    project: str = ""
    folder: Path = Path()
    names: Mapping[str, str] = field(default_factory=dict)

    def observe(
        self,
        journal: Journal,
        folder: Path,
        about: Mapping[str, Any],
        stack: ExitStack,
        after_commit: Callable[[Callable[[], None]], None] | None = None,
    ) -> Journal:
        """Return a journal whose metrics go to trackers too; the same one where there are none."""
        if not self.trackers:
            return journal
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
) -> Tracking:
    """Return what is tracked of runs; without trackers, nothing. See `Tracking`.

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
    names = {cell.identity: _name(cell) for cell in cells} if trackers else {}
    return Tracking(tuple(dict.fromkeys(trackers)), project, folder.absolute(), names)


def _name(cell: Cell) -> str:
    """Return what a run is called: a relative path that stays where it begins."""
    point = [f"{key}={value}" for key, value in without_task(cell.point).items()]
    parts = [cell.variant, *cell.task.split("/"), *point, f"seed-{cell.config.seed}"]
    return "/".join(re.sub(r"^\.+|[^\w.=+-]+", "-", part) or "-" for part in parts)
