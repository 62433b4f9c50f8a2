"""From a recipe to a finished run: build, train, report once, write the result last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.collecting import uncollected
from softprompts.errors import PromptError
from softprompts.examples import Example
from softprompts.readouts.base import Readout
from softprompts.recipes.identity import identity
from softprompts.recipes.resolving import resolve
from softprompts.recipes.schema import RunConfig
from softprompts.storage import is_there
from softprompts.tasks.base import Task
from softprompts.tasks.checking import check_task
from softprompts.tasks.sampling import draw_demonstrations
from softprompts.training.building import (
    build_model,
    build_optimizer,
    build_plan,
    choose_splits,
)
from softprompts.training.concluding import conclude
from softprompts.training.evaluation import EncodedSplit
from softprompts.training.finished import load_finished, prompt_header
from softprompts.training.journal import Journal, NoJournal, RunFolder, check_free
from softprompts.training.member import Member
from softprompts.training.pack import train_pack
from softprompts.training.progress import Progress
from softprompts.training.regularizing import build_regularizers, check_kept_fields
from softprompts.training.resources import Resources
from softprompts.training.trainable import Model, per_task
from softprompts.training.warm_start import adopt


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        config: the resolved configuration.
        backbone: the frozen model; `model.backbone` is what the run reads through.
        tasks: the tasks it was trained on, by name.
        model: prompts, readouts and what is trained of the backbone, in the selected state.
        about: content of `config.json`.
        result: content of `result.json`.
    """

    config: RunConfig
    backbone: Backbone
    tasks: Mapping[str, Task]
    model: Model
    about: Mapping[str, Any]
    result: Mapping[str, Any]


def describe_run(
    config: RunConfig, backbone: Backbone, task: Task | Mapping[str, Task]
) -> dict[str, Any]:
    """Return the content of `config.json`: what a run is, and how to load it again.

    Args:
        config: the resolved configuration.
        backbone: the frozen model.
        task: the task; by name where there are several.

    Raises:
        DataError: if a task is not as a task must be.
    """
    tasks = per_task(config, task, "tasks")
    for name, own in tasks.items():
        check_task(own, name)
    digests: Any = {name: own.digest() for name, own in tasks.items()}
    formats: Any = {name: asdict(own.format) for name, own in tasks.items()}
    about = {
        "identity": identity(config),
        "config": config.model_dump(mode="json"),
        "backbone_fingerprint": backbone.fingerprint,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "attention": backbone.attention,
        "versions": {name: version(name) for name in ("softprompts", "torch", "transformers")},
        "threads": torch.get_num_threads(),
    }
    if config.mixture is None:
        (digest,), (format,) = digests.values(), formats.values()
        return {**about, "data_digest": digest, "task_format": format}
    joint = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
    return {**about, "data_digest": joint, "task_digests": digests, "task_format": formats}


@torch.inference_mode(False)
@torch.enable_grad()
def execute(
    config: RunConfig,
    backbone: Backbone,
    task: Task | Mapping[str, Task],
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
        task: the task with its rows; by name where there are several.
        folder: the run's folder, or `None` to keep nothing.
        resources: shares encoded rows between runs.
        progress: told of every update.

    Returns:
        The finished run.

    Raises:
        SoftPromptsError: if recipe, backbone, task and folder do not fit each other.
    """
    config = resolve(config)
    tasks = per_task(config, task, "tasks")
    about = describe_run(config, backbone, tasks)
    formats = {name: own.format for name, own in tasks.items()}
    check_kept_fields(config, formats.values())
    model = build_model(config, backbone, formats)

    def read(folder: Path) -> Outcome:
        found = load_finished(folder, about, model)
        return Outcome(config, backbone, tasks, model, about, found)

    if folder is not None:
        check_free(folder, about)
        if is_there(folder / "result.json"):
            return read(folder)
    adopt(model, config)
    resources = resources or Resources()
    splits = encode_splits(config, model, tasks, resources)
    setup = Setup(config, tasks, about, model, splits, resources)
    with ExitStack() as stack:
        journal: Journal = NoJournal()
        if folder is not None:
            own = stack.enter_context(RunFolder(folder, about))
            if is_there(folder / "result.json"):  # another process had the folder until now
                return read(folder)
            journal = resources.observer.observe(own, own.path, about, stack)
        member = setup.member(journal)
        train_pack(model.backbone, [member], progress)
        result = setup.finish(member)
    return Outcome(config, backbone, tasks, model, about, result)


@final
@dataclass(frozen=True)
class Setup:
    """A run that is ready to train.

    Attributes:
        config: the resolved configuration.
        tasks: its tasks by name.
        about: content of `config.json`.
        model: what it trains, in the first state.
        splits: its rows, as `encode_splits` returns them.
        resources: what it shares with other runs.
    """

    config: RunConfig
    tasks: Mapping[str, Task]
    about: Mapping[str, Any]
    model: Model
    splits: Mapping[str, Mapping[str, EncodedSplit]]
    resources: Resources

    def member(self, journal: Journal) -> Member:
        """Return the run as a member of a pack, where the journal says it stood."""
        return make_member(self.config, self.model, self.splits, journal)

    def finish(self, member: Member) -> dict[str, Any]:
        """Score a run that is done, write prompt and result, and return the result."""
        reported = {name: own["validation"] for name, own in self.splits.items()}
        evaluate = partial(self.resources.evaluate, self.config)
        result = conclude(member, self.tasks, reported, evaluate)
        result |= {"seed": self.config.seed, "identity": self.about["identity"]}
        result |= _count_rows(self.config, self.tasks, self.splits)
        if self.config.prompt.context == "demonstrations":
            shown = {name: track.readout.num_shown for name, track in self.model.tracks.items()}
            result["num_demonstrations"] = shown
        tensors = {"rows": self.model.bake(), **self.model.state()}
        member.journal.finish(tensors, prompt_header(self.about), result)
        return result


@torch.inference_mode(False)
def set_up(
    config: RunConfig, backbone: Backbone, tasks: Mapping[str, Task], resources: Resources
) -> Setup:
    """Build a run and encode its rows; nothing is written.

    Args:
        config: a resolved configuration.
        backbone: the frozen model.
        tasks: the tasks with their rows, by name.
        resources: shares encoded rows between runs.

    Raises:
        SoftPromptsError: if recipe, backbone and tasks do not fit each other.
    """
    about = describe_run(config, backbone, tasks)
    model = build_model(config, backbone, {name: own.format for name, own in tasks.items()})
    adopt(model, config)
    splits = encode_splits(config, model, tasks, resources)
    return Setup(config, tasks, about, model, splits, resources)


@uncollected()
def encode_splits(
    config: RunConfig, model: Model, task: Task | Mapping[str, Task], resources: Resources
) -> dict[str, dict[str, EncodedSplit]]:
    """Choose and encode the rows of every task of a run.

    Args:
        config: a resolved configuration.
        model: its model, whose readouts encode.
        task: the task with its rows; by name where there are several.
        resources: shares encoded rows between runs.

    Returns:
        By task, and by split as `choose_splits` names them.
    """
    found: dict[str, dict[str, EncodedSplit]] = {}
    for name, own in per_task(config, task, "tasks").items():
        readout, splits = model.tracks[name].readout, choose_splits(config, own)
        if config.prompt.context == "demonstrations":
            show_demonstrations(config, model.tracks[name].readout, model.backbone, splits)
        found[name] = {
            split: EncodedSplit(rows, resources.encode(config, name, readout, rows))
            for split, rows in splits.items()
        }
    return found


def show_demonstrations(
    config: RunConfig,
    readout: Readout,
    backbone: Backbone,
    splits: Mapping[str, Sequence[Example]],
) -> None:
    """Let a readout show training rows in front of every input.

    Args:
        config: a resolved configuration.
        readout: the readout.
        backbone: what it reads from.
        splits: the task's rows, as `choose_splits` returns them.

    Raises:
        PromptError: if not one fits, or the context has no end and the recipe no number.
    """
    most = config.prompt.num_demonstrations
    if most is None and backbone.context_length is None:
        raise PromptError(
            "`prompt.num_demonstrations` must be given for a backbone whose context has no end, "
            "but is null."
        )
    scored = [row for split, rows in splits.items() if split != "train" for row in rows]
    longest = max(readout.encode(row).num_tokens for row in scored)
    rows = draw_demonstrations(splits["train"], most, config.seed)
    if not readout.show(rows, longest):
        raise PromptError(
            f"`prompt.num_demonstrations` must be 1 or more that fit beside an input of {longest} "
            f"tokens, but none of {len(rows)} training rows does."
        )


def make_member(
    config: RunConfig,
    model: Model,
    splits: Mapping[str, Mapping[str, EncodedSplit]],
    journal: Journal,
) -> Member:
    """Make a run ready to train.

    Args:
        config: a resolved configuration.
        model: its model.
        splits: as `encode_splits` returns them.
        journal: where traces go.
    """
    num_examples = sum(len(own["train"]) for own in splits.values())
    sampling = None if config.mixture is None else config.mixture.sampling
    plan = build_plan(config.training, num_examples, config.seed, sampling)
    optimizer = build_optimizer(config.training, model)
    regularizers = build_regularizers(config, model.backbone)
    return Member(model, optimizer, plan, splits, journal, regularizers)


def _count_rows(
    config: RunConfig,
    tasks: Mapping[str, Task],
    splits: Mapping[str, Mapping[str, EncodedSplit]],
) -> dict[str, Any]:
    """Return how many inputs were cut, by split, and how many bad rows left out, by file."""
    cut: dict[str, int] = {}
    skipped: dict[str, int] = {}
    for name, own in splits.items():
        for split, rows in own.items():
            cut[split] = cut.get(split, 0) + sum(row.is_cut for row in rows.encoded)
        start = "" if config.mixture is None else f"{name}: "
        skipped |= {f"{start}{file}": n for file, n in tasks[name].skipped_rows.items()}
    return {"num_cut": cut, "skipped_rows": skipped}
