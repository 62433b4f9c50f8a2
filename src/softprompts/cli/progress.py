"""Progress on standard error: how far, and how much time is left."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from softprompts.cli.output import visible
from softprompts.problems import show
from softprompts.recipes.grid import Cell
from softprompts.training import progress as training

LINE_SECONDS = 20.0
"""Time between lines of progress where standard error is no terminal."""

_BAR_SECONDS = 1.0
"""Time between looks at the clock where it is one."""

_LEAST_WORK = 0.05
"""Part of a run that must be done before time left is judged."""


@final
class Updates(training.Progress):
    """Passes on how many updates are done, and of how many; says a text at the first."""

    def __init__(self, tell: Callable[[int, int], None], text: str = "") -> None:
        self._tell, self._text = tell, text

    def update(self, step: int, total_steps: int) -> None:
        """Take note of an update."""
        if self._text:
            _print(self._text)
            self._text = ""
        self._tell(step, total_steps)


@final
class Bar:
    """A bar on standard error; where that is no terminal, a line per finished run and now and then.

    Use it as a context manager. A thread of its own speaks between updates, as while a run is
    scored; it only reads. `size` is said before a study's first run begins.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, size: str = "") -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._row = self._bar.add_task("starting", total=1.0, left="")
        self._size = size
        self._clock, self._began = clock, clock()
        self._total = self._done = 0
        self._new = 0.0
        self._groups: list[_Group] = []
        self._is_waiting = False
        self._lock, self._is_over = threading.RLock(), threading.Event()
        self._speaker = threading.Thread(target=self._speak, daemon=True)

    def __enter__(self) -> Bar:
        self._bar.start()
        self._speaker.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._speaker.join()
        self._bar.stop()

    def start(self, cells: Sequence[Cell], num_finished: int) -> None:
        """Take note of the runs."""
        with self._lock:
            self._total, self._done = len(cells), num_finished
            self._new, self._groups = 0.0, []
            self._began = self._clock()
            if num_finished == len(cells):
                self._bar.update(self._row, description="done")
            if num_finished:
                _print(f"{num_finished} of {len(cells)} runs were finished before")
            if self._size and num_finished < len(cells):
                _print(self._size)
                self._size = ""
            self._show()

    def begin(self, cells: Sequence[Cell], text: str = "") -> training.Progress:
        """Take note that runs begin side by side; `text` is printed once they do."""
        group = _Group({cell.identity for cell in cells}, visible(_name(cells)), len(cells))
        with self._lock:
            self._is_waiting = False
            self._groups = [one for one in self._groups if not one.names & group.names]
            self._groups.append(group)
            self._show()

        def tell(step: int, total_steps: int) -> None:
            with self._lock:
                group.move(step, total_steps)
                self._show()

        return Updates(tell, text)

    def find(self, cell: Cell) -> None:
        """Take note that another process has finished a run."""
        with self._lock:
            self._done += 1
            self._leave(cell)
            self._above(f"{self._place} {_name([cell])}: ended in another process")

    def wait(self, num_runs: int) -> None:
        """Take note that all that is left is being trained by other processes."""
        with self._lock:
            if not self._is_waiting:
                plural = "run is" if num_runs == 1 else "runs are"
                _print(f"{num_runs} {plural} in other processes")
            self._is_waiting = True

    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Take note that a run ended."""
        if result is None:
            outcome = f"failed: {error}"
        elif result["status"] == "diverged":
            outcome = f"diverged at step {result['divergence']['step']}"
        else:
            outcome = f"{100 * result['score']:.1f} in {result['seconds']:.0f} s"
        with self._lock:
            self._done += 1
            self._new += self._leave(cell)
            self._above(f"{self._place} {_name([cell])}: {outcome}{self._in_brackets()}")
            if self._done == self._total:
                self._bar.update(self._row, description="done", completed=1.0, left="")

    def tell(self) -> None:
        """Say where the runs are: in a line, or by the bar."""
        with self._lock:
            if not self._bar.disable:
                self._show()
            elif not self._total:
                _print("getting ready")
            elif self._done < self._total:
                idle = "waiting for other processes" if self._is_waiting else "getting ready"
                _print(f"{self._place} {self._where() or idle}{self._in_brackets()}")

    def _speak(self) -> None:
        """Tell again and again until the work is over: what the thread does."""
        while not self._is_over.wait(LINE_SECONDS if self._bar.disable else _BAR_SECONDS):
            self.tell()

    def _above(self, text: str) -> None:
        """Say a line that stays: above the bar where there is one."""
        if self._bar.disable:
            _print(text)
        else:
            self._bar.console.print(Text(visible(text)))

    @property
    def _place(self) -> str:
        """How many runs have ended."""
        return f"[{self._done}/{self._total}]"

    def _leave(self, cell: Cell) -> float:
        """Take note that a run is no longer in training; return the part of it done here."""
        done = 0.0
        for group in self._groups:
            if cell.identity in group.names:
                group.names.remove(cell.identity)
                group.num_ended += 1
                done = group.part
        self._groups = [group for group in self._groups if group.names]
        return done

    def _where(self) -> str:
        return " | ".join(group.where for group in self._groups)

    def _show(self) -> None:
        if self._bar.disable:
            return
        done = self._done + sum(group.num_done for group in self._groups)
        completed = done / self._total if self._total else 0.0
        self._bar.update(self._row, completed=completed, left=self._left())
        if self._groups:
            self._bar.update(self._row, description=self._where())

    def _in_brackets(self) -> str:
        left = self._left()
        return f" ({left})" if left else ""

    def _left(self) -> str:
        """Return the time left, judged by the work of this process alone."""
        new = self._new + sum(group.num_new for group in self._groups)
        remaining = self._total - self._done - sum(group.num_done for group in self._groups)
        if new < _LEAST_WORK or remaining <= 0:
            return ""
        seconds = (self._clock() - self._began) / new * remaining
        return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{seconds:.0f} s left"


@dataclass
class _Group:
    """Runs in training side by side.

    Attributes:
        names: identities of those that have not ended.
        text: what to call them, safe to show.
        size: how many began.
        step: updates that are done, of all of them.
        total_steps: all their updates; 0 before the first is done.
        first: updates that were done when it was first told, as where runs are resumed.
        num_ended: how many have ended.
    """

    names: set[str]
    text: str
    size: int
    step: int = 0
    total_steps: int = 0
    first: int = 0
    num_ended: int = 0

    def move(self, step: int, total_steps: int) -> None:
        if not self.total_steps:
            self.first, self.total_steps = step, total_steps
        self.step = step

    @property
    def where(self) -> str:
        """What they are called, and how far they are."""
        if not self.total_steps:
            return f"{self.text}: getting ready"
        scoring = ", scoring" if self.step == self.total_steps else ""
        return f"{self.text}: {self.step} of {self.total_steps} updates{scoring}"

    @property
    def part(self) -> float:
        """Part of a whole run that is or will be done here; all of one that has no updates."""
        return 1 - self.first / self.total_steps if self.total_steps else 1.0

    @property
    def num_done(self) -> float:
        """How many runs' work is done of those that have not ended."""
        share = self.step / self.total_steps if self.total_steps else 0.0
        return max(0.0, share * self.size - self.num_ended)

    @property
    def num_new(self) -> float:
        """How many runs' work was done here of those that have not ended."""
        share = (self.step - self.first) / self.total_steps if self.total_steps else 0.0
        return max(0.0, share * self.size - self.num_ended * self.part)


def _print(text: str) -> None:
    """Print a line on standard error, whole, whoever else prints."""
    sys.stderr.write(f"{visible(text)}\n")
    sys.stderr.flush()


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
    points = ({f: v for f, v in c.point.items() if (f, v) != ("task", c.task)} for c in cells)
    fields = [f for f in dict.fromkeys(f for p in points for f in p) if f != "task.name"]
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
