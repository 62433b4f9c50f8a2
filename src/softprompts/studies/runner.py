"""Runs a study: every cell once, finished runs never again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from softprompts.errors import SoftPromptsError
from softprompts.recipes.study import StudyConfig
from softprompts.storage import is_there
from softprompts.studies.grid import Cell, expand
from softprompts.studies.store import Store
from softprompts.training.adopting import adopt
from softprompts.training.building import build_model, choose_splits
from softprompts.training.execution import describe_run, execute
from softprompts.training.journal import check_free
from softprompts.training.progress import Progress
from softprompts.training.resources import Resources


class StudyProgress(ABC):
    """Is told where a study is; must not change anything."""

    @abstractmethod
    def start(self, cells: Sequence[Cell], num_finished: int) -> None:
        """Take note of the runs, and of how many were finished before."""

    @abstractmethod
    def begin(self, cell: Cell) -> Progress:
        """Take note that a run begins; return what its updates are told to."""

    @abstractmethod
    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Take note that a run ended, with a result or with an error."""


@final
class SilentStudy(StudyProgress):
    """Says nothing."""

    def start(self, cells: Sequence[Cell], num_finished: int) -> None:
        """Say nothing."""

    def begin(self, cell: Cell) -> Progress:
        """Return a silent progress."""
        from softprompts.training.progress import Silent

        return Silent()

    def end(self, cell: Cell, result: dict[str, Any] | None, error: str) -> None:
        """Say nothing."""


def run_study(
    study: StudyConfig, out: Path, progress: StudyProgress | None = None
) -> dict[str, Any]:
    """Run every unfinished run of a study and summarize all.

    Whatever can be wrong with recipe, data or backbone is found before anything is written. After
    that, a run that diverges or fails is kept with its reason and the study goes on.

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
    _check(left, resources)
    if left:
        _check_folders(cells, store, resources)
    store.open()
    errors: dict[str, str] = {}
    progress.start(cells, len(cells) - len(left))
    for cell in left:
        result, error = None, ""
        updates = progress.begin(cell)
        try:
            result = _run(cell, store.folder(cell), resources, updates)
        except SoftPromptsError as problem:
            error = errors[cell.identity] = str(problem)
        except Exception as problem:  # such as a lack of memory: the other runs may still fit
            text = " ".join(str(problem).split())
            error = errors[cell.identity] = f"{type(problem).__name__}: {text}"
        progress.end(cell, result, error)
        store.write_summary(errors)
    return store.write_summary(errors)


def _run(cell: Cell, folder: Path, resources: Resources, progress: Progress) -> dict[str, Any]:
    """Run one cell in its folder and return its result."""
    backbone = resources.backbone(cell.config.backbone)
    tasks = resources.tasks(cell.config)
    outcome = execute(
        cell.config, backbone, tasks, folder=folder, resources=resources, progress=progress
    )
    return dict(outcome.result)


def _check(cells: Sequence[Cell], resources: Resources) -> None:
    """Build every distinct run once, so that what is wrong is said before anything is written."""
    seen = set()
    for cell in cells:
        key = cell.config.model_copy(update={"seed": 0}).model_dump_json()
        if key in seen:
            continue
        seen.add(key)
        backbone = resources.backbone(cell.config.backbone)
        tasks = resources.tasks(cell.config)
        formats = {name: task.format for name, task in tasks.items()}
        adopt(build_model(cell.config, backbone, formats), cell.config)
        for task in tasks.values():
            choose_splits(cell.config, task)


def _check_folders(cells: Sequence[Cell], store: Store, resources: Resources) -> None:
    """Check that new runs will stand beside runs on the same rows and weights."""
    for cell in cells:
        if is_there(store.folder(cell)):
            backbone = resources.backbone(cell.config.backbone)
            tasks = resources.tasks(cell.config)
            check_free(store.folder(cell), describe_run(cell.config, backbone, tasks))
