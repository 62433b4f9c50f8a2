"""Runs a study: every cell once, side by side where that pays, finished runs never again."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from softprompts.errors import FolderInUseError, SoftPromptsError, SoftPromptsWarning, StorageError
from softprompts.recipes.study import StudyConfig
from softprompts.storage import is_there
from softprompts.studies.grid import Cell, expand
from softprompts.studies.planning import Pack
from softprompts.studies.store import Store
from softprompts.training.adopting import adopt
from softprompts.training.building import build_model, choose_splits
from softprompts.training.execution import describe_run, execute
from softprompts.training.footprint import budget_bytes, state_bytes
from softprompts.training.joint import Seat, execute_pack
from softprompts.training.journal import check_free, is_in_use
from softprompts.training.progress import Progress
from softprompts.training.resources import Resources

_STATE_SHARE = 0.25
"""The part of memory that parameters and optimizer states of a pack may take."""

_WAIT_SECONDS = 0.5


class StudyProgress(ABC):
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
        from softprompts.training.progress import Silent

        return Silent()

    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Say nothing."""

    def find(self, cell: Cell) -> None:
        """Say nothing."""

    def wait(self, num_runs: int) -> None:
        """Say nothing."""


def run_study(
    study: StudyConfig, out: Path, progress: StudyProgress | None = None
) -> dict[str, Any]:
    """Run every unfinished run of a study and summarize all.

    Whatever can be wrong with recipe, data or backbone is found before anything is written. After
    that, a run that diverges or fails is kept with its reason and the study goes on. Runs are
    packed once, when the study begins; an interrupted pack goes on as it was. Several processes
    may work on one folder: each takes what no other has, and ends when all runs have ended.

    Args:
        study: the study.
        out: its folder; a folder with some of its runs is gone on with.
        progress: told of every run and update.

    Returns:
        The content of `summary.json`.

    Raises:
        SoftPromptsError: if a run cannot be built, or the folder is another study's.
    """
    progress = progress or SilentStudy()
    cells = expand(study)
    store = Store(out, study, cells)
    left = [cell for cell in cells if store.result(cell) is None]
    resources = Resources()
    states = _check(left, resources)
    if left:
        _check_folders(cells, store, resources)
    store.open()
    progress.start(cells, len(cells) - len(left))
    if left:
        plan = store.plan(lambda cell: _most_runs(cell, states, resources))
        _Sitting(store, left, resources, progress).run(plan.packs)
    return store.write_summary()


@final
class _Sitting:
    """One process at work on a study.

    Args:
        store: the study's folder.
        left: the runs that were not finished at the beginning.
        resources: what runs share.
        progress: told of every run.
    """

    def __init__(
        self, store: Store, left: Sequence[Cell], resources: Resources, progress: StudyProgress
    ) -> None:
        self._store, self._resources, self._progress = store, resources, progress
        self._left = {cell.identity: cell for cell in left}
        self._failures = store.failures()  # of earlier sittings: they are tried again

    def run(self, packs: Sequence[Pack]) -> None:
        """Train packs until all their runs have ended, here or elsewhere."""
        while packs:
            busy = [pack for pack in packs if not self._try(pack)]
            if len(busy) == len(packs):
                self._progress.wait(len(self._left))
                time.sleep(_WAIT_SECONDS)
            packs = busy

    def _try(self, pack: Pack) -> bool:
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
            text = f"{len(cells)} runs failed together and are trained one by one: {_show(error)}"
            warnings.warn(text, SoftPromptsWarning, stacklevel=2)

    def _train_alone(self, cell: Cell) -> None:
        """Train one run in its folder."""
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
        """Keep how a run ended."""
        del self._left[cell.identity]
        text = "" if error is None else _show(error)
        if error is None:
            self._store.forgive(cell)
        else:
            self._store.fail(cell, text)
        self._progress.end(cell, result, text)
        self._store.write_summary()


def _show(error: Exception) -> str:
    """Return an error in one line."""
    if isinstance(error, SoftPromptsError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _check(cells: Sequence[Cell], resources: Resources) -> dict[str, int]:
    """Build every distinct run once, so that what is wrong is said before anything is written.

    Returns:
        The bytes that each takes for parameters and optimizer, by configuration.
    """
    states: dict[str, int] = {}
    for cell in cells:
        key = _key(cell)
        if key in states:
            continue
        backbone = resources.backbone(cell.config.backbone)
        tasks = resources.tasks(cell.config)
        formats = {name: task.format for name, task in tasks.items()}
        model = build_model(cell.config, backbone, formats)
        adopt(model, cell.config)
        states[key] = state_bytes(model)
        for task in tasks.values():
            choose_splits(cell.config, task)
    return states


def _key(cell: Cell) -> str:
    return cell.config.model_copy(update={"seed": 0}).model_dump_json()


def _most_runs(cell: Cell, states: dict[str, int], resources: Resources) -> int:
    """Return how many runs like a cell's fit in memory by what each keeps."""
    if _key(cell) not in states:  # it is finished
        return 1
    device = resources.backbone(cell.config.backbone).device
    return int(_STATE_SHARE * budget_bytes(device) / max(1, states[_key(cell)]))


def _check_folders(cells: Sequence[Cell], store: Store, resources: Resources) -> None:
    """Check that new runs will stand beside runs on the same rows and weights."""
    for cell in cells:
        if is_there(store.folder(cell)):
            backbone = resources.backbone(cell.config.backbone)
            tasks = resources.tasks(cell.config)
            check_free(store.folder(cell), describe_run(cell.config, backbone, tasks))
