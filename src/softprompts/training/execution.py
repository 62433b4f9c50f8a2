"""From a recipe to a finished run: build, train, report once, write the result last."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.metrics.scoring import majority
from softprompts.recipes.identity import identity
from softprompts.recipes.resolving import resolve
from softprompts.recipes.schema import RunConfig
from softprompts.storage import read_json
from softprompts.tasks.base import Task
from softprompts.training.building import (
    Model,
    build_model,
    build_optimizer,
    build_plan,
    choose_splits,
)
from softprompts.training.evaluation import EncodedSplit, Evaluation, evaluate
from softprompts.training.journal import Journal, NoJournal, RunFolder, check_free
from softprompts.training.member import Member
from softprompts.training.pack import train_pack
from softprompts.training.progress import Progress
from softprompts.training.resources import Resources


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        config: the resolved configuration.
        backbone: the frozen model.
        task: the task it was trained on.
        model: prompt and readout in the selected state.
        about: content of `config.json`.
        result: content of `result.json`.
    """

    config: RunConfig
    backbone: Backbone
    task: Task
    model: Model
    about: Mapping[str, Any]
    result: Mapping[str, Any]


def describe_run(config: RunConfig, backbone: Backbone, task: Task) -> dict[str, Any]:
    """Return the content of `config.json`: what a run is, and how to load it again."""
    return {
        "identity": identity(config),
        "config": config.model_dump(mode="json"),
        "data_digest": task.digest(),
        "backbone_fingerprint": backbone.fingerprint,
        "task_format": asdict(task.format),
        "versions": {name: version(name) for name in ("softprompts", "torch", "transformers")},
    }


def execute(
    config: RunConfig,
    backbone: Backbone,
    task: Task,
    *,
    folder: Path | None = None,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train one run and report it.

    Everything that can be wrong is found before the folder is touched. A folder with an
    interrupted run of the same identity is resumed.

    Args:
        config: the recipe; resolved here.
        backbone: the frozen model.
        task: the task with its rows.
        folder: the run's folder, or `None` to keep nothing.
        resources: shares encoded rows between runs.
        progress: told of every update.

    Returns:
        The finished run.

    Raises:
        SoftPromptsError: if recipe, backbone, task and folder do not fit each other.
    """
    config = resolve(config)
    about = describe_run(config, backbone, task)
    if folder is not None:
        check_free(folder, about)
    resources = resources or Resources()
    model = build_model(config, backbone, task.format)
    splits = {
        name: EncodedSplit(rows, resources.encode(config, model.readout, rows))
        for name, rows in choose_splits(config, task).items()
    }
    with ExitStack() as stack:
        journal: Journal = NoJournal()
        if folder is not None:
            journal = stack.enter_context(RunFolder(folder, about))
        member = Member(
            model.prompt,
            model.readout,
            build_optimizer(config.training, model),
            build_plan(config.training, len(splits["train"]), config.seed),
            splits,
            journal,
        )
        train_pack(backbone, [member], task.format, progress)
        result = _conclude(member, backbone, task, splits["validation"])
        result |= {
            "trainable_parameters": model.num_parameters,
            "seed": config.seed,
            "identity": about["identity"],
            "num_cut": {name: sum(e.is_cut for e in s.encoded) for name, s in splits.items()},
            "skipped_rows": dict(task.skipped_rows),
        }
        tensors = {"rows": model.prompt.bake(), **member.modules.state_dict()}
        journal.finish(tensors, {"identity": about["identity"]}, result)
    return Outcome(config, backbone, task, model, about, result)


def _conclude(
    member: Member, backbone: Backbone, task: Task, reported: EncodedSplit
) -> dict[str, Any]:
    """Score the last and the selected state on the reported split, and leave the selected one."""
    counters, format = member.counters, task.format
    is_finite = not counters.divergence
    last: Evaluation | None = None
    if is_finite:
        last = evaluate(backbone, member.prompt, member.readout, reported, format)
    selected = last
    member.load(member.best)
    if is_finite and counters.best_step != counters.step:
        selected = evaluate(backbone, member.prompt, member.readout, reported, format)
    counters.seconds = member.elapsed()
    return {
        "status": "finished" if is_finite else "diverged",
        "metric": " + ".join(format.metrics),
        "score": selected.score if selected else None,
        "last_score": last.score if last else None,
        "metrics": selected.metrics if selected else None,
        "last_metrics": last.metrics if last else None,
        "majority": majority(reported.examples, format),
        "num_items": len(reported),
        "split": task.validation_name,
        "steps": counters.step,
        "selected_step": counters.best_step,
        "held_out_score": counters.best_score if math.isfinite(counters.best_score) else None,
        "divergence": counters.divergence or None,
        "seconds": counters.seconds,
        "examples_per_second": counters.examples / max(counters.training_seconds, 1e-9),
        "peak_bytes": peak_bytes(backbone.device),
    }


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


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return a run folder's result, or `None` while it is not finished."""
    path = folder / "result.json"
    if not path.exists():
        return None
    result: dict[str, Any] = read_json(path)
    return result
