"""The scores of a study: variants × tasks × seeds, with a reason for each that is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from softprompts.errors import DataError
from softprompts.lab.analysis.statistics import Floats, Spread, sample, spread

UNFINISHED, DIVERGED, FAILED = "unfinished", "diverged", "failed"

_SHARED = ("cb", "copa", "wsc", "wic", "rte", "boolq", "multirc", "record")
BENCHMARKS = {
    "SuperGLUE": frozenset(f"superglue/{name}" for name in _SHARED),
    "FewGLUE": frozenset(f"fewglue/{name}" for name in _SHARED),
}


@dataclass(frozen=True)
class SeedScore:
    """One run of a study: its score, or the reason for having none, such as `diverged`.

    `answers` has a `1` for each item that was answered rightly, a `0` for others, if it is known.
    """

    variant: str
    task: str
    seed: int
    score: float | None
    reason: str = ""
    answers: str = ""


class ScoreTable:
    """Scores by variant, task and seed, in the order in which they were given.

    Args:
        runs: one per variant, task and seed; not every combination need be there.
        num_items: items that each task is scored on, where that is known.

    Raises:
        DataError: if a run comes twice, a score is not finite, or a run has both a score and a
            reason for having none, or neither.
    """

    def __init__(
        self, runs: Iterable[SeedScore], num_items: Mapping[str, int] | None = None
    ) -> None:
        self._runs: dict[tuple[str, str, int], SeedScore] = {}
        for run in runs:
            key = (run.variant, run.task, run.seed)
            place = f"{run.variant} on {run.task}, seed {run.seed}"
            if key in self._runs:
                raise DataError(f"{place}: run must come once, but comes again.")
            if (run.score is None) != bool(run.reason):
                raise DataError(
                    f"{place}: run must have a score or a reason for having none, but has score "
                    f"{run.score} and reason {run.reason!r}."
                )
            if run.score is not None:
                sample([run.score], f"{place}: score")
            self._runs[key] = run
        self.variants = tuple(dict.fromkeys(variant for variant, _, _ in self._runs))
        self.tasks = tuple(dict.fromkeys(task for _, task, _ in self._runs))
        self.seeds = tuple(sorted({seed for _, _, seed in self._runs}))
        self.num_items = dict(num_items or {})

    def scores(self, variant: str, task: str) -> dict[int, float]:
        """Return the scores of one variant on one task, by seed."""
        return {run.seed: run.score for run in self._of(variant, task) if run.score is not None}

    def answer_gaps(self, names: tuple[str, str], task: str, seeds: Sequence[int]) -> Floats | None:
        """Return one variant's answers minus another's, -1 to 1; `None` if some are not known.

        Shape `(seeds, items)`.
        """
        found = [[self._runs[name, task, seed].answers for seed in seeds] for name in names]
        if len({len(own) for line in found for own in line}) > 1 or not found[0][0]:
            return None
        both = np.array([[list(map(float, own)) for own in line] for line in found])
        gaps: Floats = both[0] - both[1]
        return gaps

    def missing(self, variant: str, task: str) -> dict[int, str]:
        """Return why runs of one variant on one task have no score, by seed."""
        return {run.seed: run.reason for run in self._of(variant, task) if run.score is None}

    def tasks_of(self, variant: str) -> tuple[str, ...]:
        """Return the tasks that a variant has runs on, with a score or without."""
        return tuple(task for task in self.tasks if self._of(variant, task))

    def _of(self, variant: str, task: str) -> list[SeedScore]:
        keys = [(variant, task, seed) for seed in self.seeds]
        return [self._runs[key] for key in keys if key in self._runs]


@dataclass(frozen=True)
class Average:
    """One variant's average over its tasks, each task with the same weight.

    A task's score is the mean of its metrics already, as SuperGLUE has it.

    Attributes:
        variant: the variant's name.
        tasks: the tasks.
        seeds: the seeds that have a score on every task.
        over_seeds: their averages over tasks.
        left_out: what is missing, one sentence per task.
        benchmark: `SuperGLUE` or `FewGLUE` where the tasks are its eight, all of them.
    """

    variant: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    over_seeds: Spread
    left_out: tuple[str, ...]
    benchmark: str | None


def average_over_tasks(table: ScoreTable, variant: str) -> Average:
    """Average a variant's scores over its tasks, seed by seed, of the seeds that all tasks have.

    Raises:
        DataError: if the table has no such variant.

    Reference:
        Wang et al. 2019, arXiv 1905.00537, section 5: the unweighted mean over tasks.
    """
    check_variant(table, variant)
    tasks = table.tasks_of(variant)
    found = [table.scores(variant, task) for task in tasks]
    seeds = tuple(seed for seed in table.seeds if all(seed in scores for scores in found))
    averages = [float(np.mean([scores[seed] for scores in found])) for seed in seeds]
    names = [name for name, members in BENCHMARKS.items() if members == set(tasks)]
    return Average(
        variant=variant,
        tasks=tasks,
        seeds=seeds,
        over_seeds=spread(averages),
        left_out=tuple(text for task in tasks if (text := describe_missing(table, variant, task))),
        benchmark=names[0] if names else None,
    )


def check_variant(table: ScoreTable, variant: str) -> None:
    """Refuse a variant that a table does not have, by a `DataError`."""
    if variant not in table.variants:
        raise DataError(
            f"variant must be one of {', '.join(table.variants) or 'none'}, but is {variant!r}."
        )


def describe_missing(table: ScoreTable, variant: str, task: str) -> str:
    """Return which seeds of a variant have no score on a task and why, or an empty text."""
    by_reason: dict[str, list[str]] = {}
    for seed, reason in table.missing(variant, task).items():
        by_reason.setdefault(reason, []).append(str(seed))
    parts = [
        f"{reason} seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
        for reason, seeds in by_reason.items()
    ]
    return f"{variant} on {task}: {'; '.join(parts)}" if parts else ""
