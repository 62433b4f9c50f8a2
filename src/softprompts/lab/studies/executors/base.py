"""Where the packs of a study are trained: in this process, if no other executor is named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from softprompts.lab.studies.planning import Pack
from softprompts.lab.studies.progress import StudyProgress
from softprompts.lab.studies.store import Store
from softprompts.lab.studies.worker_loop import WorkerLoop
from softprompts.recipes.grid import Cell
from softprompts.training.resources import Resources


@final
@dataclass(frozen=True)
class Work:
    """What is left to do of a study: unfinished runs, and all its packs in order."""

    store: Store
    left: Sequence[Cell]
    packs: Sequence[Pack]
    resources: Resources
    progress: StudyProgress


class Executor(ABC):
    """Trains the packs of a study.

    Whoever trains a pack takes its locks, writes ordinary run folders, and goes on where an
    earlier attempt stopped. So a study may change its executor from one call to the next.
    """

    @property
    def device(self) -> str | None:
        """What `backbone.device` `auto` is while the study is checked and packed.

        `None` takes an accelerator when there is one.
        """
        return None

    @property
    def num_sharing(self) -> int:
        """How many packs share the memory of one device."""
        return 1

    @abstractmethod
    def check(self, cells: Sequence[Cell]) -> None:
        """Check, before anything is loaded or written, that runs can be trained here.

        Raises:
            SoftPromptsError: if they cannot, with the reason.
        """

    @abstractmethod
    def run(self, work: Work) -> None:
        """Train packs until all runs that are left have ended, here or elsewhere.

        Raises:
            SoftPromptsError: if the study cannot go on. A run that fails is kept with its reason
                instead.
        """


@final
class InProcess(Executor):
    """Trains one pack after the other, in this process."""

    def check(self, cells: Sequence[Cell]) -> None:
        """Find nothing wrong: what this process cannot do shows when runs are built."""

    def run(self, work: Work) -> None:
        """Train packs until all runs have ended."""
        WorkerLoop(work.store, work.left, work.resources, work.progress).run(work.packs)
