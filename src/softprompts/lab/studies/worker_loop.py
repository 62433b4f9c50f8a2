"""One process at work on packs of a study."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, final

from softprompts.errors import FolderInUseError, SoftPromptsError, SoftPromptsWarning, StorageError
from softprompts.lab.studies.planning import Pack
from softprompts.lab.studies.progress import StudyProgress
from softprompts.lab.studies.store import Store
from softprompts.recipes.grid import Cell
from softprompts.storage import is_there
from softprompts.training.execution import execute
from softprompts.training.joint import Seat, execute_pack
from softprompts.training.journal import is_in_use
from softprompts.training.resources import Resources

WAIT_SECONDS = 0.5
"""How long to wait before packs that other processes have are looked at again."""


@final
class WorkerLoop:
    """One process at work on a study, of which runs are left.

    `failures` says when runs failed that are to be tried again, as `Store.failures` has it; all
    that failed before now when `None`.
    """

    def __init__(
        self,
        store: Store,
        left: Sequence[Cell],
        resources: Resources,
        progress: StudyProgress,
        failures: Mapping[str, int] | None = None,
    ) -> None:
        self._store, self._resources, self._progress = store, resources, progress
        self._left = {cell.identity: cell for cell in left}
        self._failures = store.failures() if failures is None else failures

    def run(self, packs: Sequence[Pack]) -> None:
        """Train packs until all their runs have ended, here or elsewhere."""
        while packs:
            busy = [pack for pack in packs if not self.attempt(pack)]
            if len(busy) == len(packs):
                self._progress.wait(len(self._left))
                time.sleep(WAIT_SECONDS)
            packs = busy

    def attempt(self, pack: Pack) -> bool:
        """Train a pack, unless another process has it; return whether all its runs have ended."""
        cells = self._open_cells(pack)
        folders = [self._store.folder(cell) for cell in cells]
        if any(is_in_use(folder) for folder in (self._store.pack_folder(pack), *folders)):
            return False
        try:
            if len(pack.runs) > 1 and not pack.is_apart:
                self._train(pack, cells)
                cells = self._open_cells(pack)  # those that could not join the others
            for cell in cells:
                self._train_alone(cell)
        except FolderInUseError:
            return False
        return True

    def _open_cells(self, pack: Pack) -> list[Cell]:
        """Return the runs of a pack that have not ended yet."""
        cells = [self._left[name] for name in pack.runs if name in self._left]
        failures = self._store.failures() if cells else {}
        for cell in cells:
            is_failed = failures.get(cell.identity) != self._failures.get(cell.identity)
            if is_failed or is_there(self._store.folder(cell) / "result.json"):
                del self._left[cell.identity]
                self._progress.find(cell)
        return [cell for cell in cells if cell.identity in self._left]

    def _train(self, pack: Pack, cells: Sequence[Cell]) -> None:
        """Train the runs of a pack side by side; where that fails, leave them to be done alone."""
        if not cells:
            return
        everyone = {cell.identity: cell for cell in self._store.cells}
        seats = [
            Seat(everyone[name].config, self._store.folder(everyone[name]), self._resources)
            for name in pack.runs
        ]
        backbone = self._resources.backbone(cells[0].config.backbone)

        def report(name: str, result: dict[str, Any] | None, error: Exception | None) -> None:
            if name in self._left:
                self._end(self._left[name], result, error)

        try:
            folder, updates = self._store.pack_folder(pack), self._progress.begin(cells)
            execute_pack(seats, backbone, folder, report, progress=updates)
        except FolderInUseError:
            raise
        except StorageError as error:
            for cell in [cell for cell in cells if cell.identity in self._left]:
                self._end(cell, None, error)
        except Exception as error:  # whose fault it is shows when each is alone
            self._store.set_apart(pack)
            text = f"{len(cells)} runs failed together and are trained one by one: "
            warnings.warn(f"{text}{show_error(error)}", SoftPromptsWarning, stacklevel=2)

    def _train_alone(self, cell: Cell) -> None:
        updates = self._progress.begin([cell])
        try:
            backbone = self._resources.backbone(cell.config.backbone)
            outcome = execute(
                cell.config,
                backbone,
                self._resources.tasks(cell.config),
                folder=self._store.folder(cell),
                resources=self._resources,
                progress=updates,
            )
        except FolderInUseError:
            raise
        except Exception as error:  # such as a lack of memory: the other runs may still fit
            self._end(cell, None, error)
        else:
            self._end(cell, dict(outcome.result), None)

    def _end(self, cell: Cell, result: dict[str, Any] | None, error: Exception | None) -> None:
        del self._left[cell.identity]
        text = "" if error is None else show_error(error)
        if error is None:
            self._store.forgive(cell)
        else:
            self._store.fail(cell, text)
        self._progress.end(cell, result, text)
        self._store.write_summary()


def show_error(error: Exception) -> str:
    """Return an error in one line."""
    if isinstance(error, SoftPromptsError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
