"""How a study tells where it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, final

from softprompts.recipes.grid import Cell
from softprompts.training.progress import Progress, Silent


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
class SilentStudy(StudyProgress):
    """Says nothing."""

    def start(self, cells: Sequence[Cell], num_finished: int) -> None:
        """Say nothing."""

    def begin(self, cells: Sequence[Cell]) -> Progress:
        """Return a silent progress."""
        return Silent()

    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Say nothing."""

    def find(self, cell: Cell) -> None:
        """Say nothing."""

    def wait(self, num_runs: int) -> None:
        """Say nothing."""
