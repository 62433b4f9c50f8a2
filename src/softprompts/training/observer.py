"""What follows runs beside their folders, such as a tracker of their metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

from softprompts.training.journal import Journal


class RunObserver(ABC):
    """Sees what the journals of runs are told."""

    @abstractmethod
    def observe(
        self,
        journal: Journal,
        folder: Path,
        about: Mapping[str, Any],
        stack: ExitStack,
        after_commit: Callable[[Callable[[], None]], None] | None = None,
    ) -> Journal:
        """Return the journal that a run is to tell instead; it passes everything on.

        Args:
            journal: keeps the run.
            folder: the run's folder.
            about: content of its `config.json`.
            stack: lets go of the run when it is closed.
            after_commit: registers what is called when a checkpoint of the run's pack is durable;
                `None` where a run's own is as soon as the journal has saved.
        """


@final
class NoObserver(RunObserver):
    """Sees nothing."""

    def observe(
        self,
        journal: Journal,
        folder: Path,
        about: Mapping[str, Any],
        stack: ExitStack,
        after_commit: Callable[[Callable[[], None]], None] | None = None,
    ) -> Journal:
        """Return the journal itself."""
        return journal


NO_OBSERVER = NoObserver()
