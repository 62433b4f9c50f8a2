"""Tuning before a study: each variant chooses a value on held-out rows, with the same budget.

It is chosen by successive halving: how many candidates train for how long, and which go on.

Reference:
    Jamieson and Talwalkar 2016, arXiv 1502.07943, algorithm 1.

Differences:
    A rung trains its candidates from their beginning, each with its whole schedule in fewer
    updates, where the paper goes on with what the last rung trained. The last rung has at least
    two candidates, at the full number of updates.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, final

from softprompts.errors import RecipeError, SoftPromptsWarning, StorageError, TuningError
from softprompts.lab.studies.executors.base import Executor
from softprompts.lab.studies.job import Job, prepare
from softprompts.lab.studies.progress import OnHeldOut, StudyProgress
from softprompts.lab.studies.tuning_record import (
    Chosen,
    Rung,
    Trial,
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
from softprompts.recipes.tuning import Tunable, TuneConfig, candidates, is_number, tuned
from softprompts.storage import parse_json, read_file
from softprompts.training.building import build_plan, choose_splits
from softprompts.training.resources import Resources


def tune_study(
    study: StudyConfig, out: Path, progress: StudyProgress, executor: Executor
) -> StudyConfig:
    """Tune what a study asks to be tuned, and return the study with what was chosen.

    Each rung is a study of its own in `tuning/rung-N` of the folder, so tuning stops and goes on
    as studies do. What was chosen is written last, to `tuning/chosen.json`.

    One that tunes nothing, or has its choices, is returned as it is. Progress is told scores on
    held-out rows.

    Raises:
        SoftPromptsError: if a run cannot be built, no rows can be held out, or the folder is
            another study's.
        TuningError: if a run failed; the same call tries it again.
    """
    if study.tune is None or study.tune.chosen is not None:
        return study
    expand(study)  # says what is wrong with it
    plan = _Plan.of(study, study.tune)
    record = read_record_of(out)
    if record is None or record.fingerprint != plan.fingerprint:
        record = _tune(plan, out, progress, executor)
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
    ) -> StudyConfig:
        """Return a rung as a study; its variants are the candidates alive of each run, in order."""
        variants: dict[str, dict[str, Any]] = {}
        last = self.tune.field.rpartition(".")[2]
        for index, run in enumerate(self.runs):
            for candidate in alive[index]:
                value = show(self.values[candidate])
                name = f"{place(run.variant, run.point)}, {last} {value}"
                name = name if name not in variants else f"{name} ({index}, {candidate})"
                config = self.configs[index][candidate]
                variants[name] = rung_run(config, steps[index][number], steps[index][-1])
        return StudyConfig(
            name=f"{self.study.name or 'study'}, rung {number} of tuning",
            description=f"Candidates for {self.tune.field}, scored on held-out rows.",
            variants=variants,
            seeds=self.tune.seeds,
            pack_size=self.study.pack_size,
        )


def _tune(plan: _Plan, out: Path, progress: StudyProgress, executor: Executor) -> TuningRecord:
    resources = Resources(executor.device)
    keep, sizes = plan.tune.keep, rung_sizes(len(plan.values), plan.tune.keep)
    steps = [rung_steps(total, keep, len(sizes)) for total in _total_steps(plan, resources)]
    whole = prepare(plan.study, out, executor, resources)
    alive = [list(range(len(plan.values))) for _ in plan.runs]
    rungs: list[list[Rung]] = [[] for _ in plan.runs]
    for number in range(len(sizes)):
        study = plan.rung(number, alive, steps)
        job = prepare(study, out / "tuning" / f"rung-{number}", executor, resources)
        if not number:
            whole.store.open()  # everything is checked by now
        job.run(OnHeldOut(progress))
        results = iter(_results(job))
        for index, own in enumerate(rungs):
            order = ranked([tried(plan.values[one], next(results)) for one in alive[index]])
            own.append(Rung(steps=steps[index][number], tried=order))
            if number + 1 < len(sizes):
                best = [one.value for one in order[: sizes[number + 1]]]
                alive[index] = [i for i, value in enumerate(plan.values) if value in best]
    return _record(plan, rungs, sizes)


def _results(job: Job) -> list[list[tuple[Path, Mapping[str, Any]]]]:
    """Return folder and result of every run of a rung, variant by variant, if all have one."""
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
    return list(results.values())


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


def rung_sizes(num_candidates: int, keep: int) -> tuple[int, ...]:
    """Return how many candidates each rung has.

    One in `keep`, rounded up, goes on to the next; `keep` is at least 2.

    Example:
        >>> rung_sizes(5, 3), rung_sizes(10, 3), rung_sizes(3, 3)
        ((5, 2), (10, 4, 2), (3,))
    """
    sizes = [num_candidates]
    while (rest := -(-sizes[-1] // keep)) > 1:
        sizes.append(rest)
    return tuple(sizes)


def rung_steps(total_steps: int, keep: int, num_rungs: int) -> tuple[int, ...]:
    """Return the updates of a run in each rung: all in the last, `keep` times fewer before each.

    Example:
        >>> rung_steps(100, 3, 3)
        (12, 34, 100)
    """
    return tuple(-(-total_steps // keep**left) for left in reversed(range(num_rungs)))


def rung_run(config: RunConfig, steps: int, total_steps: int) -> dict[str, Any]:
    """Return the recipe of a run in a rung, without its seed.

    It selects on held-out rows, and scores one reported row alone, which decides nothing. What is
    counted in updates, the warm-up and the fall of the temperature, is shortened as the run is.

    Args:
        config: the run of the study, resolved.
        steps: its updates in the rung.
        total_steps: its updates in the study.
    """
    data = {k: v for k, v in config.model_dump(mode="json").items() if v is not None}
    del data["seed"]
    training = data["training"]
    training |= {"steps": steps, "epochs": None, "selection": "held-out"}
    for component, key, least in (("schedule", "warmup_steps", 0), ("temperature", "steps", 1)):
        count = training[component].get(key)
        if count is not None:
            training[component][key] = max(least, count * steps // total_steps)
    tasks = data["mixture"]["tasks"].values() if "mixture" in data else [data["task"]]
    for task in tasks:
        task["num_items"] = 1
    return data


def tried(value: Any, results: Sequence[tuple[Path, Mapping[str, Any]]]) -> Trial:
    """Return what a candidate did.

    Results are folder and `result.json` of its run with each seed.

    Raises:
        StorageError: if a run's records cannot be read.
    """
    done = [(folder, result) for folder, result in results if result["status"] == "finished"]
    scores = [result["held_out_score"] for _, result in done]
    losses = [_held_out_loss(folder, result["selected_step"]) for folder, result in done]
    known = [loss for loss in losses if loss is not None]
    return Trial(
        value=value,
        score=fmean(scores) if scores and None not in scores else None,
        loss=fmean(known) if known and len(known) == len(losses) else None,
        num_diverged=len(results) - len(done),
        updates_done=sum(result["steps"] for _, result in results),
    )


def ranked(found: Sequence[Trial]) -> list[Trial]:
    """Return candidates, the best first.

    A candidate of which a seed diverged comes after those of which fewer did; then the mean score
    decides, then the mean loss, then the smaller number or the earlier name in the given order.
    """

    def key(place: int) -> tuple[float, ...]:
        one = found[place]
        score = math.inf if one.score is None else -one.score
        loss = math.inf if one.loss is None else one.loss
        return one.num_diverged, score, loss, one.value if is_number(one.value) else place

    return [found[place] for place in sorted(range(len(found)), key=key)]


def _held_out_loss(folder: Path, step: int) -> float | None:
    """Return the loss on held-out rows after an update of a run, as far as it is finite."""
    path = folder / "metrics.jsonl"
    try:
        records = [parse_json(line) for line in read_file(path).decode().splitlines()]
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} must be lines of JSON, but is not: {error}.") from error
    for one in records:
        if isinstance(one, dict) and (one.get("split"), one.get("step")) == ("held_out", step):
            loss = one.get("loss")
            return float(loss) if isinstance(loss, int | float) else None
    return None
