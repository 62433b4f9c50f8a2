"""Which trackers runs have, and what they are called there."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from softprompts.errors import SoftPromptsWarning, TrackingError
from softprompts.lab.tracking.base import TrackedRun, Tracker, Value
from softprompts.lab.tracking.registry import TRACKERS

if TYPE_CHECKING:
    from softprompts.lab.studies.grid import Cell


_EXTRA = ("accelerate", "tensorboard")
"""Packages of the extra `tracking`."""


@final
@dataclass(frozen=True)
class Tracking:
    """What is tracked; nothing without trackers.

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

    def run(self, about: Mapping[str, Any]) -> TrackedRun:
        """Return a run as trackers know it.

        Args:
            about: content of its `config.json`.
        """
        name = self.names.get(about["identity"], about["identity"])
        settings = {**flatten(about["config"]), "identity": about["identity"]}
        return TrackedRun(self.project, name, self.folder, settings, "")


NO_TRACKING = Tracking()
"""Tracks nothing."""


def build_tracking(
    trackers: Sequence[str], project: str, folder: Path, cells: Sequence[Cell]
) -> Tracking:
    """Return what is tracked of runs.

    Args:
        trackers: registry names; none tracks nothing.
        project: what the study is called.
        folder: where local files of trackers go.
        cells: the runs.

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
    point = [f"{key}={value}" for key, value in cell.point.items() if key != "task.name"]
    parts = [cell.variant, *cell.task.split("/"), *point, f"seed-{cell.config.seed}"]
    return "/".join(re.sub(r"^\.+|[^\w.=+-]+", "-", part) or "-" for part in parts)


def flatten(config: Mapping[str, Any], start: str = "") -> dict[str, Value]:
    """Return nested settings by dotted field; what is null is left out.

    Args:
        config: mappings, lists and plain values.
        start: what fields begin with.

    Example:
        >>> flatten({"a": {"b": 1, "c": None}, "d": [2]})
        {'a.b': 1, 'd.0': 2}
    """
    found: dict[str, Value] = {}
    for key, value in config.items():
        if isinstance(value, list):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, Mapping):
            found |= flatten(value, f"{start}{key}.")
        elif value is not None:
            found[f"{start}{key}"] = value
    return found


@final
class Crew:
    """The trackers of one run; one that fails is left out, and that is said.

    Args:
        tracking: which.
        run: the run.
        keys: what earlier processes were told to call the run, by tracker.
    """

    def __init__(self, tracking: Tracking, run: TrackedRun, keys: Mapping[str, str]) -> None:
        self.keys = dict(keys)
        self._trackers: dict[str, Tracker] = {}
        for name in tracking.trackers:
            if name in _failed:
                continue
            one = TrackedRun(run.project, run.name, run.folder, run.settings, keys.get(name, ""))
            try:
                tracker = TRACKERS.load(name)()
                self.keys[name] = tracker.start(one)
            except Exception as error:
                _leave_out(name, error)
            else:
                self._trackers[name] = tracker

    def log(self, lines: list[tuple[int, dict[str, float]]]) -> None:
        """Pass metrics on.

        Args:
            lines: updates and metrics by name, in order.
        """
        for name, tracker in self._working():
            try:
                tracker.log(lines)
            except Exception as error:
                _leave_out(name, error)

    def finish(self, is_over: bool) -> None:
        """Let go of the run.

        Args:
            is_over: whether it has its result.
        """
        for name, tracker in self._working():
            try:
                tracker.finish(is_over)
            except Exception as error:
                _leave_out(name, error)
        self._trackers.clear()

    def _working(self) -> Iterator[tuple[str, Tracker]]:
        return (item for item in list(self._trackers.items()) if item[0] not in _failed)


_failed: set[str] = set()
"""Trackers that failed in this process: they are left out from then on."""


def _leave_out(name: str, error: Exception) -> None:
    """Say once that a tracker failed."""
    _failed.add(name)
    text = " ".join(str(error).split())
    warnings.warn(
        f"tracker {name} failed and is left out from here on, while training goes on: "
        f"{type(error).__name__}: {text}",
        SoftPromptsWarning,
        stacklevel=2,
    )
