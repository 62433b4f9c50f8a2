"""Where metrics of a run go beside its folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

Value = str | int | float | bool


@final
@dataclass(frozen=True)
class TrackedRun:
    """A run, as trackers know it.

    Attributes:
        project: what its study is called.
        name: what it is called, such as `residual/fewglue/cb/seed-0`; a relative path.
        folder: where local files of trackers go, for all runs of the study.
        settings: its configuration, by dotted field.
        key: what the tracker calls the run since an earlier process; empty at the beginning.
    """

    project: str
    name: str
    folder: Path
    settings: Mapping[str, Value]
    key: str


class Tracker(ABC):
    """Passes metrics of one run on; `packages` must be installed. An error never ends the run."""

    packages: ClassVar[tuple[str, ...]]

    @abstractmethod
    def start(self, run: TrackedRun) -> str:
        """Begin the run, or go on; return what to call it when another process does, not empty."""

    @abstractmethod
    def log(self, lines: list[tuple[int, dict[str, float]]]) -> None:
        """Pass metrics on."""

    @abstractmethod
    def finish(self, is_over: bool) -> None:
        """Let go of the run, which has its result if it is over; else another process may go on."""
