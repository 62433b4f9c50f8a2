"""Runs a study: every cell once, side by side where that pays, finished runs never again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softprompts.lab.notebooks import Study
from softprompts.lab.studies.executors.base import Executor, InProcess
from softprompts.lab.studies.job import prepare
from softprompts.lab.studies.looks import run_looks
from softprompts.lab.studies.progress import StudyBar, StudyProgress
from softprompts.lab.studies.tuning import tune_study
from softprompts.recipes.study import StudyConfig, parse_study
from softprompts.recipes.tuning import TuneConfig
from softprompts.training.observer import NO_OBSERVER, RunObserver
from softprompts.training.resources import Resources


def run_study(
    study: StudyConfig,
    out: str | Path,
    progress: StudyProgress | None = None,
    executor: Executor | None = None,
    tracking: RunObserver = NO_OBSERVER,
    tune: TuneConfig | None = None,
) -> Study:
    """Run every unfinished run of a study and summarize all.

    Whatever can be wrong with recipe, data or backbone is found before anything is written. After
    that, a run that diverges or fails is kept with its reason and the study goes on. Runs are
    packed once, when the study begins; an interrupted pack goes on as it was. Several processes
    may work on one folder: each takes what no other has, and ends when all runs have ended. Where
    the study says `more_seeds`, seeds are added as `run_looks` has it.

    Args:
        study: the study.
        out: its folder; a folder with some of its runs is gone on with.
        progress: told of every run and update; a bar in a terminal or a notebook when `None`.
        executor: where packs are trained; in this process when `None`.
        tracking: where else metrics go.
        tune: what is tuned first; what the study says when `None`. See `tune_study`.

    Returns:
        The content of `summary.json`, which a notebook shows.

    Raises:
        SoftPromptsError: if a run cannot be built, the folder is another study's, or the executor
            cannot work.
        TuningError: if a run of the tuning failed.
    """
    out, progress, executor = Path(out), progress or StudyBar(), executor or InProcess()
    if tune is not None:
        content = {**study.model_dump(mode="json"), "tune": tune.model_dump(mode="json")}
        study = parse_study(content, study.name or "study")
    study = tune_study(study, out, progress, executor)
    resources = Resources(executor.device, tracking)

    def run(study: StudyConfig) -> dict[str, Any]:
        return prepare(study, out, executor, resources).run(progress)

    found = run(study) if study.more_seeds is None else run_looks(study, out, run)
    return Study(found, out)
