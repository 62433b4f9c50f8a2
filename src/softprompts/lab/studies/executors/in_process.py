"""One pack after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from softprompts.lab.studies.executors.base import Executor, Work
from softprompts.lab.studies.worker_loop import WorkerLoop
from softprompts.recipes.grid import Cell


@final
class InProcess(Executor):
    """Trains one pack after the other, in this process."""

    def check(self, cells: Sequence[Cell]) -> None:
        """Find nothing wrong: what this process cannot do shows when runs are built."""

    def run(self, work: Work) -> None:
        """Train packs until all runs have ended."""
        WorkerLoop(work.store, work.left, work.resources, work.progress).run(work.packs)
