"""How a study tells where it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, final

from softprompts.recipes.grid import Cell
from softprompts.training.progress import Progress, progress_bar


class StudyProgress(Protocol):
    """Is told where a study is; must not change anything."""

    @abstractmethod
    def start(self, cells: Sequence[Cell], num_finished: int) -> None:
        """Take note of the runs, and of how many were finished before."""

    @abstractmethod
    def begin(self, cells: Sequence[Cell]) -> Progress:
        """Take note that runs begin side by side; return what their updates are told to."""

    @abstractmethod
    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Take note that a run ended, with a result or with an error."""

    @abstractmethod
    def find(self, cell: Cell) -> None:
        """Take note that another process has finished a run."""

    @abstractmethod
    def wait(self, num_runs: int) -> None:
        """Take note that all that is left is being trained by other processes."""


@final
class StudyBar(StudyProgress):
    """Shows runs as `progress_bar` does, and how far those in training are."""

    def __init__(self) -> None:
        self._bar = progress_bar("run")

    def start(self, cells: Sequence[Cell], num_finished: int) -> None:
        """Begin a bar of these runs."""
        self._bar.close()
        self._bar = progress_bar("run", len(cells), num_finished)

    def begin(self, cells: Sequence[Cell]) -> Progress:
        """Return what shows the updates of runs behind the bar."""
        return _Behind(self._bar, ", ".join(dict.fromkeys(cell.variant for cell in cells)))

    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Move the bar by a run."""
        self.find(cell)

    def find(self, cell: Cell) -> None:
        """Move the bar by a run."""
        self._bar.update()
        if self._bar.n >= (self._bar.total or 0):
            self._bar.close()

    def wait(self, num_runs: int) -> None:
        """Say that other processes have what is left."""
        self._bar.set_postfix_str(f"{num_runs} in other processes")


@final
class _Behind(Progress):
    """Shows updates behind a bar of runs."""

    def __init__(self, bar: Any, names: str) -> None:
        self._bar, self._names = bar, names

    def update(self, step: int, total_steps: int) -> None:
        """Show how far the runs are."""
        self._bar.set_postfix_str(f"{self._names}: {step} of {total_steps} updates")


@final
class OnHeldOut(StudyProgress):
    """Passes on what it is told, with scores on held-out rows in the place of reported ones."""

    def __init__(self, progress: StudyProgress) -> None:
        self._progress = progress

    def start(self, cells: Sequence[Cell], num_finished: int) -> None:
        """Pass on the runs of a rung."""
        self._progress.start(cells, num_finished)

    def begin(self, cells: Sequence[Cell]) -> Progress:
        """Pass on that runs begin."""
        return self._progress.begin(cells)

    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Pass on that a run ended."""
        if result is not None and result["status"] == "finished":
            result = {**result, "score": result["held_out_score"]}
        self._progress.end(cell, result, error)

    def find(self, cell: Cell) -> None:
        """Pass on that another process has finished a run."""
        self._progress.find(cell)

    def wait(self, num_runs: int) -> None:
        """Pass on that other processes have what is left."""
        self._progress.wait(num_runs)
