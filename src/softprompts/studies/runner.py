"""Runs a study: every cell once, side by side where that pays, finished runs never again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softprompts.recipes.study import StudyConfig
from softprompts.storage import is_there
from softprompts.studies.executors.base import Executor, Work
from softprompts.studies.executors.in_process import InProcess
from softprompts.studies.grid import Cell, expand
from softprompts.studies.progress import SilentStudy, StudyProgress
from softprompts.studies.store import Store
from softprompts.tracking.tracking import NO_TRACKING, Tracking
from softprompts.training.adopting import adopt
from softprompts.training.building import build_model, choose_splits
from softprompts.training.execution import describe_run
from softprompts.training.footprint import budget_bytes, state_bytes
from softprompts.training.journal import check_free
from softprompts.training.resources import Resources

_STATE_SHARE = 0.25
"""The part of memory that parameters and optimizer states of a pack may take."""


def run_study(
    study: StudyConfig,
    out: Path,
    progress: StudyProgress | None = None,
    executor: Executor | None = None,
    tracking: Tracking = NO_TRACKING,
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
        executor: where packs are trained; in this process when `None`.
        tracking: where else metrics go.

    Returns:
        The content of `summary.json`.

    Raises:
        SoftPromptsError: if a run cannot be built, the folder is another study's, or the executor
            cannot work.
    """
    progress, executor = progress or SilentStudy(), executor or InProcess()
    cells = expand(study)
    store = Store(out, study, cells)
    left = [cell for cell in cells if store.result(cell) is None]
    executor.check(left)
    resources = Resources(executor.device, tracking)
    states = _check(left, resources)
    if left:
        _check_folders(cells, store, resources)
    store.open()
    progress.start(cells, len(cells) - len(left))
    if left:
        plan = store.plan(
            lambda cell: _most_runs(cell, states, resources) // executor.num_sharing,
            executor.device,
        )
        executor.run(Work(store, left, plan.packs, resources, progress))
    return store.write_summary()


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
