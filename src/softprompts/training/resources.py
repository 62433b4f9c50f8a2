"""What runs of one process share: backbones, tasks and encoded rows, each loaded once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import final

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.loading import load_backbone
from softprompts.encoding.inputs import EncodedExample
from softprompts.examples import Example
from softprompts.machine_memory import free_memory
from softprompts.readouts.base import Readout
from softprompts.recipes.checks import is_trained
from softprompts.recipes.schema import BackboneConfig, RunConfig, TaskConfig
from softprompts.tasks.base import Task
from softprompts.tasks.loading import load_task
from softprompts.training.evaluation import EncodedSplit, Evaluation, evaluate_tasks
from softprompts.training.observer import NO_OBSERVER, RunObserver
from softprompts.training.reader import find_reader
from softprompts.training.trainable import Model


@final
class Resources:
    """Loads what recipes name, once.

    Args:
        device: what `auto` is; chosen by what there is when `None`.
        observer: follows runs beside their folders.
    """

    def __init__(self, device: str | None = None, observer: RunObserver = NO_OBSERVER) -> None:
        self.device, self.observer = device, observer
        self._backbones: dict[str, Backbone] = {}
        self._tasks: dict[str, Task] = {}
        self._evaluated: dict[Hashable, Mapping[str, Evaluation]] = {}
        self._encoded: dict[tuple[str, int], tuple[Example, EncodedExample]] = {}

    def backbone(self, config: BackboneConfig) -> Backbone:
        """Return the backbone that a recipe names."""
        key = config.model_dump_json()
        if key not in self._backbones:
            self._backbones[key] = load_backbone(
                config.name,
                revision=config.revision,
                dtype=config.dtype,
                device=choose_device(config.device, self.device),
                attention=config.attention,
                gradient_checkpointing=config.gradient_checkpointing,
                compile=config.compile,
                device_map=config.device_map,
                max_memory=config.max_memory,
            )
        return self._backbones[key]

    def release(self) -> None:
        """Forget all backbones, so that their memory is free for other processes."""
        devices = [backbone.device for backbone in self._backbones.values()]
        self._backbones.clear()
        for device in devices:
            free_memory(device)

    def task(self, config: TaskConfig, seed: int) -> Task:
        """Return the task that a recipe names; see `load_configured_task`."""
        is_sampled = config.shots is not None or config.shots_total is not None
        key = f"{config.model_dump_json()}/{seed if is_sampled else ''}"
        if key not in self._tasks:
            self._tasks[key] = load_configured_task(config, seed)
        return self._tasks[key]

    def tasks(self, config: RunConfig) -> dict[str, Task]:
        """Return the tasks of a run by name."""
        return {name: self.task(task, config.seed) for name, task in config.tasks.items()}

    def encode(
        self, config: RunConfig, name: str, readout: Readout, examples: Sequence[Example]
    ) -> tuple[EncodedExample, ...]:
        """Encode examples of a task, or return what an earlier run with the same encoding kept.

        Args:
            config: the run.
            name: the task's name in it.
            readout: the task's readout.
            examples: the examples.
        """
        prompt, task = config.prompt, config.tasks[name]
        if prompt.context is not None:  # of the run's own
            return tuple(map(readout.encode, examples))
        about = (prompt.length, prompt.depth, prompt.position)
        key = repr((config.backbone, task, config.readout, about))
        missing = [example for example in examples if (key, id(example)) not in self._encoded]
        fresh = find_reader().encode(config.readout, readout, missing)
        for example, encoded in zip(missing, fresh, strict=True):
            self._encoded[key, id(example)] = (example, encoded)
        return tuple(self._encoded[key, id(example)][1] for example in examples)

    def evaluate(
        self, config: RunConfig, model: Model, splits: Mapping[str, EncodedSplit]
    ) -> Mapping[str, Evaluation]:
        """Evaluate a run, or return what an earlier one found that must have found the same.

        A run that trains and draws nothing says of the same inputs what it says with any seed.

        Args:
            config: the run.
            model: its model.
            splits: labelled rows by task.
        """
        if is_trained(config) or config.prompt.context == "demonstrations":
            return evaluate_tasks(model, splits)
        about = config.model_copy(update={"seed": 0}).model_dump_json()
        key = (about, tuple((name, split.encoded) for name, split in splits.items()))
        if key not in self._evaluated:
            self._evaluated[key] = evaluate_tasks(model, splits)
        return self._evaluated[key]


def choose_device(name: str, auto: str | None = None) -> str:
    """Return a torch device name; `auto` is the accelerator where there is one.

    Args:
        name: what a recipe says.
        auto: what `auto` is; chosen by what there is when `None`.
    """
    if name != "auto":
        return name
    if auto is not None:
        return auto
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_configured_task(config: TaskConfig, seed: int) -> Task:
    """Load the task that a recipe names.

    Args:
        config: the task's part of a recipe.
        seed: the run's; draws the few-shot sample where the recipe gives it no seed of its own.
    """
    return load_task(
        config.name,
        data_dir=Path(config.data_dir) if config.data_dir is not None else None,
        shots=config.shots,
        shots_total=config.shots_total,
        seed=seed if config.sample_seed is None else config.sample_seed,
        skip_bad_rows=config.skip_bad_rows,
        allow_missing_labels=config.allow_missing_labels,
        template=config.template,
        num_items=config.num_items,
        options=config.options,
    )
