"""Tuning before a study: each variant chooses a value on held-out rows, with the same budget."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from softprompts.errors import RecipeError, SoftPromptsWarning, TuningError
from softprompts.lab.studies.executors.base import Executor, InProcess
from softprompts.lab.studies.job import Job, prepare
from softprompts.lab.studies.progress import OnHeldOut, StudyBar, StudyProgress
from softprompts.lab.studies.rungs import ranked, rung_run, rung_sizes, rung_steps, tried
from softprompts.lab.studies.tuning_record import (
    Chosen,
    Rung,
    TuningRecord,
    read_record_of,
    write_tuning,
)
from softprompts.problems import show
from softprompts.recipes.grid import expand, task_of
from softprompts.recipes.identity import identity
from softprompts.recipes.overrides import place
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.study import StudyConfig, tunable
from softprompts.recipes.tune_checks import candidates, tuned
from softprompts.recipes.tuning import Tunable, TuneConfig
from softprompts.training.building import build_plan, choose_splits
from softprompts.training.resources import Resources


def tune_study(
    study: StudyConfig,
    out: Path,
    progress: StudyProgress | None = None,
    executor: Executor | None = None,
) -> StudyConfig:
    """Tune what a study asks to be tuned, and return the study with what was chosen.

    Each rung is a study of its own in `tuning/rung-N` of the folder, so tuning stops and goes on
    as studies do. What was chosen is written last, to `tuning/chosen.json`.

    Args:
        study: the study; one that tunes nothing, or has its choices, is returned as it is.
        out: its folder.
        progress: told of every run and update; scores are those on held-out rows.
        executor: where packs are trained; in this process when `None`.

    Raises:
        SoftPromptsError: if a run cannot be built, no rows can be held out, or the folder is
            another study's.
        TuningError: if a run failed; the same call tries it again.

    Reference:
        Jamieson and Talwalkar 2016, arXiv 1502.07943.
    """
    if study.tune is None or study.tune.chosen is not None:
        return study
    expand(study)  # says what is wrong with it
    plan = _Plan.of(study, study.tune)
    record = read_record_of(out)
    if record is None or record.fingerprint != plan.fingerprint:
        record = _tune(plan, out, progress or StudyBar(), executor or InProcess())
        write_tuning(out, record)
    for text in _remarks(plan, record):
        warnings.warn(text, SoftPromptsWarning, stacklevel=2)
    update = {"values": record.values, "chosen": record.chosen}
    return study.model_copy(update={"tune": study.tune.model_copy(update=update)})


@final
@dataclass(frozen=True)
class _Plan:
    """What is to be tried, before any data is read."""

    study: StudyConfig
    tune: TuneConfig
    runs: Sequence[Tunable]
    values: Sequence[Any]
    configs: Sequence[Sequence[RunConfig]]

    @staticmethod
    def of(study: StudyConfig, tune: TuneConfig) -> _Plan:
        runs = tunable(study)
        values = candidates(tune, runs)
        configs = [
            [resolve(parse_run(tuned(run, tune.field, value)[0])) for value in values]
            for run in runs
        ]
        return _Plan(study, tune, runs, values, configs)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over all that decides what is chosen."""
        tries = [
            [run.variant, dict(run.point), [identity(config) for config in configs]]
            for run, configs in zip(self.runs, self.configs, strict=True)
        ]
        about = [self.tune.field, list(self.values), list(self.tune.seeds), self.tune.keep, tries]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    def rung(
        self, number: int, alive: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]
    ) -> tuple[StudyConfig, dict[str, tuple[int, int]]]:
        """Return a rung as a study, and which run and candidate each of its variants is."""
        variants: dict[str, dict[str, Any]] = {}
        places: dict[str, tuple[int, int]] = {}
        last = self.tune.field.rpartition(".")[2]
        for index, run in enumerate(self.runs):
            for candidate in alive[index]:
                value = show(self.values[candidate])
                name = f"{place(run.variant, run.point)}, {last} {value}"
                name = name if name not in variants else f"{name} ({index}, {candidate})"
                config = self.configs[index][candidate]
                variants[name] = rung_run(config, steps[index][number], steps[index][-1])
                places[name] = (index, candidate)
        rung = StudyConfig(
            name=f"{self.study.name or 'study'}, rung {number} of tuning",
            description=f"Candidates for {self.tune.field}, scored on held-out rows.",
            variants=variants,
            seeds=self.tune.seeds,
            pack_size=self.study.pack_size,
        )
        return rung, places


def _tune(plan: _Plan, out: Path, progress: StudyProgress, executor: Executor) -> TuningRecord:
    resources = Resources(executor.device)
    keep, sizes = plan.tune.keep, rung_sizes(len(plan.values), plan.tune.keep)
    steps = [rung_steps(total, keep, len(sizes)) for total in _total_steps(plan, resources)]
    whole = prepare(plan.study, out, executor, resources)
    alive = [list(range(len(plan.values))) for _ in plan.runs]
    rungs: list[list[Rung]] = [[] for _ in plan.runs]
    for number in range(len(sizes)):
        study, places = plan.rung(number, alive, steps)
        job = prepare(study, out / "tuning" / f"rung-{number}", executor, resources)
        if not number:
            whole.store.open()  # everything is checked by now
        job.run(OnHeldOut(progress))
        results = _results(job)
        for index, own in enumerate(rungs):
            names = [(name, candidate) for name, (run, candidate) in places.items() if run == index]
            order = ranked([tried(plan.values[place], results[name]) for name, place in names])
            own.append(Rung(steps=steps[index][number], tried=order))
            if number + 1 < len(sizes):
                best = [one.value for one in order[: sizes[number + 1]]]
                alive[index] = [i for i, value in enumerate(plan.values) if value in best]
    return _record(plan, rungs, sizes)


def _results(job: Job) -> dict[str, list[tuple[Path, Mapping[str, Any]]]]:
    """Return folder and result of every run of a rung, by variant; a `TuningError` without one."""
    results: dict[str, list[tuple[Path, Mapping[str, Any]]]] = {}
    missing = []
    for cell in job.store.cells:
        if (result := job.store.result(cell)) is None:
            missing.append(cell)
        else:
            results.setdefault(cell.variant, []).append((job.store.folder(cell), result))
    if missing:
        first = f"{missing[0].variant}, seed {missing[0].config.seed}"
        reason = job.store.error(missing[0]) or "it has no result"
        raise TuningError(
            f"{job.store.path} must have every run before anything is chosen, but lacks "
            f"{len(missing)} of {len(job.store.cells)}: {first}: {reason.rstrip('.')}. The same "
            "command tries again."
        )
    return results


def _record(plan: _Plan, rungs: Sequence[Sequence[Rung]], sizes: Sequence[int]) -> TuningRecord:
    """Return what was found: the best of the last rung is chosen."""
    choices = []
    for run, own in zip(plan.runs, rungs, strict=True):
        best = own[-1].tried[0]
        given = sum(size * rung.steps for size, rung in zip(sizes, own, strict=True))
        choices.append(
            Chosen(
                variant=run.variant,
                point=dict(run.point),
                task=task_of(run.point, run.config),
                value=best.value,
                score=best.score,
                updates=given * len(plan.tune.seeds),
                updates_done=sum(one.updates_done for rung in own for one in rung.tried),
                rungs=list(own),
            )
        )
    trained = {choice.variant for choice in choices}
    return TuningRecord(
        **plan.tune.model_dump(include={"field", "keep"}),
        values=list(plan.values),
        seeds=list(plan.tune.seeds),
        fingerprint=plan.fingerprint,
        choices=choices,
        untrained=[name for name in plan.study.variants if name not in trained],
    )


def _total_steps(plan: _Plan, resources: Resources) -> list[int]:
    """Return the updates of each run in the study; candidates at one point must have the same."""
    totals = []
    for configs in plan.configs:
        seeded = [one.model_copy(update={"seed": plan.study.seeds[0]}) for one in configs]
        totals.append([_steps(config, resources) for config in seeded])
    by_point: dict[str, dict[int, str]] = {}
    for run, found in zip(plan.runs, totals, strict=True):
        for value, total in zip(plan.values, found, strict=True):
            name = f"{place(run.variant, run.point)} with {show(value)}"
            by_point.setdefault(json.dumps(dict(run.point)), {}).setdefault(total, name)
    for named in by_point.values():
        if len(named) > 1:
            said = ", ".join(f"{total} ({name})" for total, name in named.items())
            text = (
                "`tune` must give every variant and candidate the same number of updates, but they "
                f"have {said}. Set `training.steps` in the base, or in the grid."
            )
            raise RecipeError([text], plan.study.name or "study")
    return [found[0] for found in totals]


def _steps(config: RunConfig, resources: Resources) -> int:
    if config.training.steps is not None:
        return config.training.steps
    tasks = resources.tasks(config).values()
    num_rows = sum(len(choose_splits(config, task)["train"]) for task in tasks)
    return build_plan(config.training, num_rows, config.seed).total_steps


def _remarks(plan: _Plan, record: TuningRecord) -> list[str]:
    """Return what a user should know of what was chosen."""
    texts = [
        f"tuning {record.field}: {show(one.value)} for {one.name}: {one.remark}."
        for one in record.choices
        if one.remark
    ]
    if any(run.config.training.selection == "last" for run in plan.runs):
        texts.append(
            "tuning holds out rows to score candidates, and takes the best evaluation of each, "
            "although `training.selection` is last; the study itself trains on all rows."
        )
    return texts
