"""What a process does that trains packs for another: orders come in, events go out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from softprompts.errors import SoftPromptsError, SoftPromptsWarning
from softprompts.lab.studies.planning import Pack
from softprompts.lab.studies.progress import StudyProgress
from softprompts.lab.studies.store import Store
from softprompts.lab.studies.worker_loop import WorkerLoop, show_error
from softprompts.recipes.grid import Cell, expand
from softprompts.recipes.study import StudyConfig
from softprompts.training.observer import RunObserver
from softprompts.training.progress import Progress
from softprompts.training.resources import Resources

Event = tuple[Any, ...]
"""A kind, and what belongs to it.

`enter` (a task begins an attempt); `begin` runs; `update` step, total; `end` run, result, error;
`find` run; `warn` text; and last `raise` text, is_ours, or `leave`, whether all runs have ended.
"""

Tell = Callable[[Event], None]

_UPDATE_SECONDS = 0.2
"""Shortest time between two `update` events, but for the last."""


@final
@dataclass(frozen=True)
class WorkerSetup:
    """What a worker keeps from order to order; the study's folder is absolute."""

    study: StudyConfig
    out: Path
    observer: RunObserver


@final
@dataclass(frozen=True)
class PackOrder:
    """A pack to train, its runs that have not ended, and failures as `WorkerLoop` takes them."""

    pack: Pack
    left: tuple[str, ...]
    failures: Mapping[str, int]


@final
class Worker:
    """Trains packs of one study, and keeps what they share; `device` is what `auto` is here."""

    def __init__(self, setup: WorkerSetup, device: str | None) -> None:
        self._store = Store(setup.out, setup.study, expand(setup.study))
        self._resources = Resources(device, setup.observer)

    def train(self, order: PackOrder, tell: Tell) -> None:
        """Train a pack; whatever comes of it is told, last of all by `leave` or `raise`."""
        left = [cell for cell in self._store.cells if cell.identity in order.left]
        loop = WorkerLoop(self._store, left, self._resources, _Telling(tell), order.failures)
        try:
            with _told_warnings(tell):
                has_ended = loop.attempt(order.pack)
        except Exception as error:
            tell(("raise", show_error(error), isinstance(error, SoftPromptsError)))
        else:
            tell(("leave", has_ended))


@final
class _Telling(StudyProgress):
    """Sends what it is told."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def start(self, cells: Sequence[Cell], num_finished: int) -> None:
        """Say nothing: whoever gave the order knows."""

    def begin(self, cells: Sequence[Cell]) -> Progress:
        self._tell(("begin", tuple(cell.identity for cell in cells)))
        return _Updates(self._tell)

    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        self._tell(("end", cell.identity, result, error))

    def find(self, cell: Cell) -> None:
        self._tell(("find", cell.identity))

    def wait(self, num_runs: int) -> None:
        """Say nothing: whoever gave the order waits."""


@final
class _Updates(Progress):
    """Sends how far updates are, now and then."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._last = tell, 0.0

    def update(self, step: int, total_steps: int) -> None:
        now = time.monotonic()
        if now - self._last >= _UPDATE_SECONDS or step == total_steps:
            self._last = now
            self._tell(("update", step, total_steps))


@contextmanager
def _told_warnings(tell: Tell) -> Iterator[None]:
    """Send warnings of the library instead of printing them."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, SoftPromptsWarning):
                tell(("warn", str(message)))
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = say
        yield
