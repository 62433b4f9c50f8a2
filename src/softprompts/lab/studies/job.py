"""A study that has been checked, so that it can be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from softprompts.lab.studies.executors.base import Executor, Work
from softprompts.lab.studies.progress import StudyProgress
from softprompts.lab.studies.store import Store
from softprompts.recipes.grid import Cell, expand
from softprompts.recipes.study import StudyConfig
from softprompts.storage import is_there
from softprompts.training.building import build_model, choose_splits
from softprompts.training.execution import describe_run
from softprompts.training.footprint import budget_bytes, state_bytes
from softprompts.training.journal import check_free
from softprompts.training.resources import Resources
from softprompts.training.warm_start import adopt

_STATE_SHARE = 0.25
"""The part of memory that parameters and optimizer states of a pack may take."""


@final
@dataclass(frozen=True)
class Job:
    """A study that has been checked; nothing of it is written yet.

    `states` has the bytes that each run that is left takes for parameters and optimizer.
    """

    store: Store
    left: Sequence[Cell]
    states: Mapping[str, int]
    resources: Resources
    executor: Executor

    def run(self, progress: StudyProgress) -> dict[str, Any]:
        """Run every unfinished run, and return the content of `summary.json`.

        Raises:
            SoftPromptsError: if the folder cannot be written, or the executor cannot work.
        """
        cells = self.store.cells
        self.store.open()
        progress.start(cells, len(cells) - len(self.left))
        if self.left:
            plan = self.store.plan(self._most_runs, self.executor.device)
            work = Work(self.store, self.left, plan.packs, self.resources, progress)
            self.executor.run(work)
        return self.store.write_summary()

    def _most_runs(self, cell: Cell) -> int:
        """Return how many runs like a cell's fit in one process's memory by what each keeps."""
        if _key(cell) not in self.states:  # it is finished
            return 1
        device = self.resources.backbone(cell.config.backbone).device
        most = int(_STATE_SHARE * budget_bytes(device) / max(1, self.states[_key(cell)]))
        return most // self.executor.num_sharing


def prepare(study: StudyConfig, out: Path, executor: Executor, resources: Resources) -> Job:
    """Check a study, nothing of which is left to be tuned, before anything is written.

    Raises:
        SoftPromptsError: if a run cannot be built, the folder is another study's, or the executor
            cannot work.
    """
    cells = expand(study)
    store = Store(out, study, cells)
    left = [cell for cell in cells if store.result(cell) is None]
    executor.check(left)
    states = {}
    for cell in left:
        if (key := _key(cell)) not in states:
            states[key] = _built_bytes(cell, resources)
    for cell in cells if left else ():  # new runs stand beside runs on the same rows and weights
        if is_there(store.folder(cell)):
            backbone, tasks = resources.backbone(cell.config.backbone), resources.tasks(cell.config)
            check_free(store.folder(cell), describe_run(cell.config, backbone, tasks))
    return Job(store, left, states, resources, executor)


def _built_bytes(cell: Cell, resources: Resources) -> int:
    """Build a run, and return the bytes that it takes for parameters and optimizer."""
    backbone, tasks = resources.backbone(cell.config.backbone), resources.tasks(cell.config)
    formats = {name: task.format for name, task in tasks.items()}
    model = build_model(cell.config, backbone, formats)
    adopt(model, cell.config)
    for task in tasks.values():
        choose_splits(cell.config, task)
    return state_bytes(model)


def _key(cell: Cell) -> str:
    return cell.config.model_copy(update={"seed": 0}).model_dump_json()
