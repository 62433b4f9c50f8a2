"""From the lines of `summary.json` to tables of scores, and to what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from softprompts.lab.analysis.comparisons import compare
from softprompts.lab.analysis.permutations import Looks
from softprompts.lab.analysis.scores import ScoreTable, SeedScore, average_over_tasks
from softprompts.seeding import derive


def statistics_of(
    lines: Sequence[Mapping[str, Any]], baseline: str, looks: Looks | None = None
) -> dict[str, Any]:
    """Compare variants with a baseline and average over tasks, at each point of a study's grid.

    Draws are seeded by a fixed number, so the same lines, `cells` of `summary.json`, say the same.

    Returns:
        `baseline`; `comparisons`, each a `Comparison` with its `point`; `averages`, each an
        `Average` with its `point`, where a variant has several tasks.

    Raises:
        DataError: if the lines do not make tables.
    """
    comparisons, averages = [], []
    for point, table in score_tables(lines):
        draws = np.random.default_rng(derive(0, "comparisons"))
        found = compare(table, baseline, draws, looks) if baseline in table.variants else ()
        comparisons += [{"point": point, **asdict(comparison)} for comparison in found]
        means = [average_over_tasks(table, variant) for variant in table.variants]
        averages += [{"point": point, **asdict(mean)} for mean in means if len(mean.tasks) > 1]
    return {"baseline": baseline, "comparisons": comparisons, "averages": averages}


def score_tables(lines: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, Any], ScoreTable]]:
    """Return one table per point of a study's grid, the grid's tasks together in one.

    With each comes its point, without the task. A run of several tasks counts as one task here,
    scored by the mean over them: its tasks share one training, so they are not independent. How
    many items stand behind that mean is not known: few items of one task weigh as much as many of
    another.

    Raises:
        DataError: if the lines do not make a table.
    """
    groups: dict[str, tuple[dict[str, Any], list[Mapping[str, Any]]]] = {}
    for line in lines:
        point = without_task(line["point"])
        groups.setdefault(repr(point), (point, []))[1].append(line)
    return [(point, _table(members)) for point, members in groups.values()]


def _table(lines: Sequence[Mapping[str, Any]]) -> ScoreTable:
    runs: list[SeedScore] = []
    items: dict[str, set[int | None]] = {}
    for line in lines:
        place = (line["variant"], line["task"])
        answers = line.get("answers") or [""] * len(line["seeds"])
        scores = zip(line["seeds"], line["scores"], answers, strict=True)
        runs += [SeedScore(*place, seed, score, answers=own) for seed, score, own in scores]
        runs += [SeedScore(*place, gap["seed"], None, gap["reason"]) for gap in line["missing"]]
        num_items = None if "tasks" in line else line["num_items"]
        items.setdefault(line["task"], set()).add(num_items)
    known = {task: [n for n in found if n is not None] for task, found in items.items()}
    return ScoreTable(runs, {task: n[0] for task, n in known.items() if len(n) == 1})


def without_task(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a grid point without what names its task: `task.name`, or the name of `task`."""
    rest = {field: value for field, value in point.items() if field not in ("task", "task.name")}
    task = point.get("task")
    own = task.items() if isinstance(task, Mapping) else ()
    options = {key: value for key, value in own if key not in ("name", "data_dir")}
    return {**rest, "task": options} if options else rest


def point_words(point: Mapping[str, Any]) -> str:
    """Return a grid point in words, without what names its task.

    Example:
        >>> point_words({"task": "rte", "prompt.length": 5, "training.schedule": "cosine"})
        'prompt.length=5 training.schedule=cosine'
    """
    return " ".join(f"{field}={value}" for field, value in without_task(point).items())


def variant_words(line: Mapping[str, Any]) -> str:
    """Return what a variant at a point of the grid is called: of a cell, comparison or curve."""
    return f"{line['variant']} {point_words(line['point'])}".strip()
