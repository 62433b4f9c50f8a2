"""What is known of a study by the process that gives packs to workers."""

from __future__ import annotations

import time
import warnings
from typing import final

from softprompts.errors import ExecutorError, SoftPromptsWarning
from softprompts.lab.studies.executors.base import Work
from softprompts.lab.studies.executors.worker import Event, PackOrder
from softprompts.lab.studies.planning import Pack
from softprompts.lab.studies.worker_loop import WAIT_SECONDS
from softprompts.recipes.grid import Cell
from softprompts.training.progress import Progress

MOST_ATTEMPTS = 3
"""How often a pack is given to a worker before its runs are kept as failed."""


@final
class Ledger:
    """Which packs are waiting, which runs have not ended, and what is said of them."""

    def __init__(self, work: Work) -> None:
        self._store, self._progress = work.store, work.progress
        self._left = {cell.identity: cell for cell in work.left}
        self._failures = work.store.failures()
        self._deaths: dict[Pack, int] = {}
        self._updates: dict[Pack, Progress] = {}
        self._waiting = [(0.0, pack) for pack in work.packs if self.left(pack)]

    @property
    def packs(self) -> tuple[Pack, ...]:
        """The packs that nobody has, in order."""
        return tuple(pack for _, pack in self._waiting)

    def left(self, pack: Pack) -> list[Cell]:
        """Return the runs of a pack that have not ended."""
        return [self._left[name] for name in pack.runs if name in self._left]

    def take(self) -> Pack | None:
        """Return the next pack and forget that it waits; `None` while there is none."""
        now = time.monotonic()
        for place, (moment, pack) in enumerate(self._waiting):
            if moment <= now:
                del self._waiting[place]
                return pack
        return None

    def order(self, pack: Pack) -> PackOrder:
        """Return what a worker is told of a pack."""
        names = tuple(cell.identity for cell in self.left(pack))
        return PackOrder(pack, names, self._failures)

    def hear(self, pack: Pack, event: Event) -> bool:
        """Take note of what a worker tells of its pack; return whether it is done with that.

        Raises:
            ExecutorError: if the study cannot go on.
            RuntimeError: if the library has a fault.
        """
        kind, *about = event
        if kind == "begin":
            cells = [self._left[name] for name in about[0] if name in self._left]
            self._updates[pack] = self._progress.begin(cells)
        elif kind == "update":
            self._updates[pack].update(*about)
        elif kind in ("end", "find"):
            cell = self._left.pop(about[0], None)
            if cell is None:  # an earlier attempt could tell
                return False
            if kind == "end":
                self._progress.end(cell, *about[1:])
            else:
                self._progress.find(cell)
        elif kind == "warn":
            warnings.warn(about[0], SoftPromptsWarning, stacklevel=2)
        elif kind == "raise":
            raise (ExecutorError if about[1] else RuntimeError)(about[0])
        elif kind == "leave":
            if not about[0]:  # another process has it
                self._waiting.append((time.monotonic() + WAIT_SECONDS, pack))
            return True
        return False

    def lose(self, pack: Pack, how: str) -> None:
        """Take note that a worker died; its pack waits again, unless that was so too often.

        How it ended is told as in `was killed by signal 9`.
        """
        for cell in self.left(pack):
            if self._store.result(cell) is not None:  # it died before it could tell
                self._progress.find(self._left.pop(cell.identity))
        if not self.left(pack):
            return
        if self.resume(pack, how) < MOST_ATTEMPTS:
            self._waiting.insert(0, (0.0, pack))
        else:
            reason = f"its worker died {MOST_ATTEMPTS} times; the last one {how}."
            self.give_up(pack, reason)

    def resume(self, pack: Pack, how: str) -> int:
        """Take note that a worker died and say so; return how often that was with its pack."""
        self._deaths[pack] = deaths = self._deaths.get(pack, 0) + 1
        if deaths < MOST_ATTEMPTS:
            left = len(self.left(pack))
            warnings.warn(
                f"a worker {how} with {left} run{'s' * (left != 1)} in training; they go on in "
                f"another (attempt {deaths + 1} of {MOST_ATTEMPTS}).",
                SoftPromptsWarning,
                stacklevel=2,
            )
        return deaths

    def give_up(self, pack: Pack, reason: str) -> None:
        """Keep the runs of a pack that have not ended as failed."""
        for cell in self.left(pack):
            self._store.fail(cell, reason)
            self._progress.end(self._left.pop(cell.identity), None, reason)
        self._store.write_summary()

    def wait(self) -> None:
        """Say that all that is left is being trained by other processes, and pause."""
        self._progress.wait(len(self._left))
        time.sleep(WAIT_SECONDS)
