"""The score table of a study, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softprompts.lab.analysis.study_statistics import variant_words
from softprompts.lab.reports.tabular import spelled

HEADINGS = (
    *("task", "variant", "score", "min", "max", "majority"),
    *("items", "seeds", "updates", "seconds"),
)


def score_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return one row per variant, task and grid point, tasks together.

    Below a mixture's row comes one for each of its tasks, whose name begins with `· `. Columns are
    `HEADINGS`, scores in percent.
    """
    order = list(dict.fromkeys(line["task"] for line in summary["cells"]))
    lines = sorted(summary["cells"], key=lambda line: order.index(line["task"]))
    return [row for line in lines for row in (_row(line), *_task_rows(line))]


def notes(summary: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know beside the scores: failures, divergence, cut inputs."""
    texts = []
    for line in summary["cells"]:
        name = f"{line['variant']} on {line['task']}"
        texts += [f"{name}: {lost}." for lost in lost_runs(line)]
        texts += [f"{name}: {error}" for error in line["errors"]]
    cut = {
        line["task"]: ", ".join(said)
        for line in summary["cells"]
        if (said := [f"{n} in {split}" for split, n in (line["num_cut"] or {}).items() if n])
    }
    return [*texts, *(f"{task}: inputs cut to fit: {said}." for task, said in cut.items())]


def lost_runs(line: Mapping[str, Any]) -> list[str]:
    """Return how many runs of a line have no score, and why, in words."""
    words = {"num_diverged": "diverged", "num_failed": "failed", "num_missing": "not run yet"}
    return [f"{line[key]} {word}" for key, word in words.items() if line[key]]


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    keys = ("mean", "std", "min", "max", "majority")
    mean, std, *others = (spelled("percent", line[key]) for key in keys)
    return (
        line["task"],
        variant_words(line),
        f"{mean} ± {std}",
        *others,
        "–" if line["num_items"] is None else str(line["num_items"]),
        str(len(line["seeds"])),
        "–" if line["updates"] is None else str(line["updates"]),
        f"{line['seconds']:.0f}",
    )


def _task_rows(line: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row per task of a mixture: what is the mixture's alone is left out."""
    return [
        (f"· {name}", *_row({**line, **own})[1:8], "", "")
        for name, own in line.get("tasks", {}).items()
    ]
