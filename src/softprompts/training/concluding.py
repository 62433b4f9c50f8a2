"""The end of a run: its last and its selected state, scored once on the reported rows."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

import torch

from softprompts.metrics.registry import scored
from softprompts.metrics.scoring import majority
from softprompts.metrics.writing import shown_texts
from softprompts.tasks.base import Task
from softprompts.training.evaluation import EncodedSplit, Evaluation, evaluate_tasks
from softprompts.training.member import Member
from softprompts.training.trainable import Model

MEAN = "mean over tasks"
"""What the metric of a mixture is called."""

Found = Mapping[str, Evaluation]


def conclude(
    member: Member,
    tasks: Mapping[str, Task],
    reported: Mapping[str, EncodedSplit],
    evaluate: Callable[[Model, Mapping[str, EncodedSplit]], Found] = evaluate_tasks,
) -> dict[str, Any]:
    """Score the last and the selected state on the reported rows, and leave the selected one.

    Args:
        member: a run that is done.
        tasks: its tasks by name.
        reported: the reported rows by task.
        evaluate: evaluates a run on labelled rows of each of its tasks.

    Returns:
        What `result.json` says of scores, steps and time. In a mixture score, last score and
        majority are means over tasks, and `tasks` has those of each.
    """
    counters = member.counters
    is_finite = not counters.divergence
    with member.timed():
        member.settle()
        last = evaluate(member.model, reported) if is_finite else None
        member.load(member.best)
        selected = last
        if is_finite and counters.best_step != counters.step:
            selected = evaluate(member.model, reported)
    lines = {
        name: _line(task, reported[name], _of(selected, name), _of(last, name))
        for name, task in tasks.items()
    }
    return {
        "status": "finished" if is_finite else "diverged",
        **(_joint(lines) if member.model.is_mixture else next(iter(lines.values()))),
        "steps": counters.step,
        "selected_step": counters.best_step,
        "held_out_score": counters.best_score if math.isfinite(counters.best_score) else None,
        "divergence": counters.divergence or None,
        "seconds": counters.seconds,
        "examples_per_second": counters.examples / max(counters.training_seconds, 1e-9),
        "peak_bytes": peak_bytes(member.backbone.device),
        "most_positions": counters.most_positions,
        "trainable_parameters": member.model.num_parameters,
    }


def _of(found: Found | None, name: str) -> Evaluation | None:
    return None if found is None else found[name]


def _line(
    task: Task, reported: EncodedSplit, selected: Evaluation | None, last: Evaluation | None
) -> dict[str, Any]:
    """Return what a result says of one task."""
    written = {}
    if task.format.is_writing and selected is not None:
        written["written"] = shown_texts(selected.texts, reported.examples)
    return {
        "metric": " + ".join(scored(task.format.metrics)),
        "score": selected.score if selected else None,
        "last_score": last.score if last else None,
        "metrics": selected.metrics if selected else None,
        "choices": dict(selected.choices) if selected else None,
        "last_metrics": last.metrics if last else None,
        "majority": majority(reported.examples, task.format),
        "num_items": len(reported),
        "split": task.validation_name,
        **({"answers": selected.answers} if selected and selected.answers else {}),
        **written,
    }


def _joint(lines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a result says of several tasks together, and of each."""
    splits = dict.fromkeys(line["split"] for line in lines.values())
    return {
        "metric": MEAN,
        **{name: _mean(lines, name) for name in ("score", "last_score", "majority")},
        "num_items": sum(line["num_items"] for line in lines.values()),
        "split": " + ".join(splits),
        "tasks": {name: dict(line) for name, line in lines.items()},
    }


def _mean(lines: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    values = [line[name] for line in lines.values()]
    return None if None in values else fmean(values)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory this process has used: on an accelerator its tensors, else all."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not on this platform
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
