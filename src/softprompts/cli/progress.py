"""Progress on a terminal: how far, and how much time is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from softprompts.studies.grid import Cell
from softprompts.studies.runner import StudyProgress
from softprompts.training import progress as training


@final
class Updates(training.Progress):
    """Passes the share of a run's updates on."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell

    def update(self, step: int, total_steps: int) -> None:
        """Take note of an update."""
        self._tell(step / total_steps)


@final
class Bar(StudyProgress):
    """A bar on standard error; where that is no terminal, a line per finished run.

    Use it as a context manager.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._row = self._bar.add_task("starting", total=1.0, left="")
        self._began = time.perf_counter()
        self._total = self._done = self._new = 0

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def start(self, cells: Sequence[Cell], num_finished: int) -> None:
        """Take note of the runs."""
        self._total, self._done = len(cells), num_finished
        self._began = time.perf_counter()
        if num_finished:
            print(f"{num_finished} of {len(cells)} runs were finished before", file=sys.stderr)
        self._show("", 0.0)

    def begin(self, cell: Cell) -> training.Progress:
        """Take note that a run begins."""
        name = f"{cell.variant}, {cell.task}, seed {cell.config.seed}"
        self._show(name, 0.0)
        return Updates(lambda share: self._show(name, share))

    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Take note that a run ended."""
        self._done += 1
        self._new += 1
        left = self._left(0.0)
        if result is None:
            outcome = f"failed: {error}"
        elif result["status"] == "diverged":
            outcome = f"diverged at step {result['divergence']['step']}"
        else:
            outcome = f"{100 * result['score']:.1f} in {result['seconds']:.0f} s"
        if self._bar.disable:
            place = f"[{self._done}/{self._total}]"
            text = f"{place} {cell.variant}, {cell.task}, seed {cell.config.seed}: {outcome}"
            print(text + (f" ({left})" if left else ""), file=sys.stderr, flush=True)
        self._show("done" if self._done == self._total else "", 0.0)

    def _show(self, name: str, share: float) -> None:
        """Move the bar to `share` of the current run."""
        completed = (self._done + share) / self._total if self._total else 1.0
        self._bar.update(self._row, completed=completed, left=self._left(share))
        if name:
            self._bar.update(self._row, description=name)

    def _left(self, share: float) -> str:
        """Return the time left, judged by the runs of this sitting."""
        done, remaining = self._new + share, self._total - self._done - share
        if done < 0.2 or remaining <= 0:
            return ""
        seconds = (time.perf_counter() - self._began) / done * remaining
        return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{seconds:.0f} s left"
