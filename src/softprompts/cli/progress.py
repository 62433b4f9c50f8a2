"""Progress on a terminal: how far, and how much time is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from softprompts.recipes.problems import show
from softprompts.studies.grid import Cell
from softprompts.studies.progress import StudyProgress
from softprompts.training import progress as training


@final
class Updates(training.Progress):
    """Passes the share of updates that are done on.

    Args:
        tell: told the share.
        text: printed on standard error at the first update.
    """

    def __init__(self, tell: Callable[[float], None], text: str = "") -> None:
        self._tell, self._text = tell, text

    def update(self, step: int, total_steps: int) -> None:
        """Take note of an update."""
        if self._text:
            print(self._text, file=sys.stderr, flush=True)
            self._text = ""
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
        self._groups: list[_Group] = []
        self._is_waiting = False

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
        self._show()

    def begin(self, cells: Sequence[Cell], text: str = "") -> training.Progress:
        """Take note that runs begin side by side; `text` is printed once they do."""
        group = _Group({cell.identity for cell in cells}, _name(cells), len(cells))
        self._groups = [one for one in self._groups if not one.names & group.names]
        self._groups.append(group)
        self._show()

        def tell(share: float) -> None:
            group.share = share
            self._show()

        return Updates(tell, text)

    def find(self, cell: Cell) -> None:
        """Take note that another process has finished a run."""
        self._done += 1
        self._leave(cell)
        if self._bar.disable:
            text = f"[{self._done}/{self._total}] {_name([cell])}: ended in another process"
            print(text, file=sys.stderr, flush=True)

    def wait(self, num_runs: int) -> None:
        """Take note that all that is left is being trained by other processes."""
        if not self._is_waiting:
            plural = "run is" if num_runs == 1 else "runs are"
            print(f"{num_runs} {plural} in other processes", file=sys.stderr, flush=True)
        self._is_waiting = True

    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Take note that a run ended."""
        self._done += 1
        self._new += 1
        self._leave(cell)
        left = self._left()
        if result is None:
            outcome = f"failed: {error}"
        elif result["status"] == "diverged":
            outcome = f"diverged at step {result['divergence']['step']}"
        else:
            outcome = f"{100 * result['score']:.1f} in {result['seconds']:.0f} s"
        if self._bar.disable:
            place = f"[{self._done}/{self._total}]"
            text = f"{place} {_name([cell])}: {outcome}"
            print(text + (f" ({left})" if left else ""), file=sys.stderr, flush=True)
        if self._done == self._total:
            self._bar.update(self._row, description="done", completed=1.0, left="")

    def _leave(self, cell: Cell) -> None:
        """Take note that a run is no longer in training."""
        for group in self._groups:
            if cell.identity in group.names:
                group.names.remove(cell.identity)
                group.num_ended += 1
        self._groups = [group for group in self._groups if group.names]

    def _show(self) -> None:
        """Move the bar to where the runs are."""
        done = self._done + self._under_way()
        completed = done / self._total if self._total else 1.0
        names = " | ".join(group.text for group in self._groups)
        self._bar.update(self._row, completed=completed, left=self._left())
        if names:
            self._bar.update(self._row, description=names)

    def _under_way(self) -> float:
        """Return how many runs' work is done of those that have not ended."""
        return sum(max(0.0, one.share * one.size - one.num_ended) for one in self._groups)

    def _left(self) -> str:
        """Return the time left, judged by the runs of this sitting."""
        under_way = self._under_way()
        new, remaining = self._new + under_way, self._total - self._done - under_way
        if new < 0.2 or remaining <= 0:
            return ""
        seconds = (time.perf_counter() - self._began) / new * remaining
        return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{seconds:.0f} s left"


@dataclass
class _Group:
    """Runs in training side by side.

    Attributes:
        names: identities of those that have not ended.
        text: what to call them.
        size: how many began.
        share: part of their updates that is done.
        num_ended: how many have ended.
    """

    names: set[str]
    text: str
    size: int
    share: float = 0.0
    num_ended: int = 0


def _name(cells: Sequence[Cell]) -> str:
    """Return what to call runs that train side by side."""

    def joined(values: Iterable[object]) -> str:
        found = list(dict.fromkeys(map(str, values)))
        more = f" and {len(found) - 3} more" if len(found) > 4 else ""
        return ", ".join(found[:3] if more else found) + more

    seeds = joined(cell.config.seed for cell in cells)
    plural = "seed" if len({cell.config.seed for cell in cells}) == 1 else "seeds"
    variants, tasks = joined(c.variant for c in cells), joined(c.task for c in cells)
    points = [f"{name} {joined(values)}" for name, values in _varied(cells).items()]
    return ", ".join([variants, tasks, *points, f"{plural} {seeds}"])


def _varied(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Return the values of the grid at runs by the field's last name, the task's apart."""
    fields = [f for f in dict.fromkeys(f for c in cells for f in c.point) if f != "task.name"]
    last = [field.rpartition(".")[2] for field in fields]
    return {
        (name if last.count(name) == 1 else field): [
            _plain(cell.point[field]) for cell in cells if field in cell.point
        ]
        for name, field in zip(last, fields, strict=True)
    }


def _plain(value: object) -> str:
    """Return a value as a recipe would write it, a text without its quotes."""
    return value if isinstance(value, str) else show(value)
