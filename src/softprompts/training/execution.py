"""From a recipe to a finished run: build, train, report once, write the result last."""

from __future__ import annotations

import hashlib
import json
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
from softprompts.errors import StorageError
from softprompts.metrics.scoring import majority
from softprompts.recipes.identity import identity
from softprompts.recipes.resolving import resolve
from softprompts.recipes.schema import RunConfig
from softprompts.storage import is_there, read_record, read_tensors
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

RESULT = (
    "identity",
    "status",
    "metric",
    "score",
    "last_score",
    "majority",
    "num_items",
    "split",
    "steps",
    "seconds",
    "trainable_parameters",
    "num_cut",
)
"""What `result.json` must have to be read: what summaries and reports are made from."""


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
        "dtype": str(backbone.dtype).removeprefix("torch."),
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
    interrupted run of the same identity is resumed; a finished one is read and left as it is.

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
    model = build_model(config, backbone, task.format)
    if folder is not None:
        check_free(folder, about)
        if is_there(folder / "result.json"):
            found = load_finished(folder, about, model)
            return Outcome(config, backbone, task, model, about, found)
    resources = resources or Resources()
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
        journal.finish(tensors, prompt_header(about), result)
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
        "choices": dict(selected.choices) if selected else None,
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


def prompt_header(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `prompt.safetensors` says of its run: whose it is, and the labels it scores."""
    text = json.dumps(about["task_format"], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"identity": about["identity"], "task_format_digest": digest}


def read_result(folder: Path, identity: str) -> dict[str, Any]:
    """Read a run folder's `result.json`.

    Args:
        folder: the folder of a finished run.
        identity: the run that the result must be of.

    Raises:
        StorageError: if the run is not finished, or the file is broken or of another run.
    """
    path = folder / "result.json"
    if not is_there(path):
        raise StorageError(f"{folder} must hold a finished run, but has no result.json.")
    result = read_record(path, RESULT)
    if result["identity"] != identity:
        raise StorageError(
            f"{path} must be the result of run {identity}, but is of {result['identity']}."
        )
    return result


def load_finished(folder: Path, about: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Put a finished run's prompt and readout into a model.

    Args:
        folder: the folder.
        about: content of its `config.json`.
        model: the run's model, in any state.

    Returns:
        The content of `result.json`.

    Raises:
        StorageError: if a file is missing, broken or of another run.
    """
    result = read_result(folder, about["identity"])
    path = folder / "prompt.safetensors"
    tensors, header = read_tensors(path)
    for key, value in prompt_header(about).items():
        if header.get(key) != value:
            raise StorageError(
                f"{path} must have `{key}` {value}, as config.json has, but has {header.get(key)}."
            )
    for name, module in (("prompt.", model.prompt), ("readout.", model.readout)):
        state = {k[len(name) :]: v for k, v in tensors.items() if k.startswith(name)}
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise StorageError(
                f"{path} must hold the run's {name[:-1]}, but does not: {error}"
            ) from error
    return result
