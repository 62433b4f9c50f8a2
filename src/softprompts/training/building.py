"""The one builder: a recipe becomes flat, typed arguments here, and nothing below sees a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.tokenization import Tokenization
from softprompts.errors import DataError, PromptError
from softprompts.prompts.initializers.base import Surroundings
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.registry import INITIALIZERS, POOLS, POSITIONS, ROWS
from softprompts.readouts.base import Readout, Setting
from softprompts.readouts.registry import READOUTS
from softprompts.recipes.schema import PromptConfig, RunConfig, TrainingConfig
from softprompts.seeding import generator
from softprompts.tasks.base import Task, TaskFormat
from softprompts.tasks.sampling import split_held_out
from softprompts.training.member import Plan
from softprompts.training.registry import OPTIMIZERS, SCHEDULES, TEMPERATURES


@dataclass(frozen=True)
class Model:
    """What a run trains: a prompt and a readout for one task on one backbone."""

    prompt: Prompt
    readout: Readout

    @property
    def parameters(self) -> list[Tensor]:
        """Trainable parameters, prompt first."""
        modules = (self.prompt, self.readout)
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    @property
    def num_parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.parameters)


def build_prompt(
    config: PromptConfig, backbone: Backbone, label_words: Sequence[str], seed: int
) -> Prompt:
    """Build a prompt in its first state.

    Args:
        config: a resolved prompt configuration: every axis explicit.
        backbone: whose embeddings it starts from.
        label_words: the task's label words; empty for choice tasks.
        seed: the run's seed.

    Raises:
        PromptError: if the prompt cannot be built for this backbone or task.
    """
    rows, position, initializer = config.rows, config.position, config.initializer
    length, pool, width = config.length, config.pool, backbone.hidden_size
    if rows is None or position is None or initializer is None or pool is None or length is None:
        raise PromptError("`prompt` must be resolved before it is built.")
    start = INITIALIZERS.load(initializer.kind)(**initializer.options)
    sets, initials = [], list[Tensor]()
    for number in range(pool.options.get("size", 1)):
        path = (number,) if number else ()  # the first set starts as a single one would
        draws = generator(seed, "initialization", "rows", *path)
        initial = start(length, Surroundings(backbone, label_words, draws))
        if initial.numel() and any(torch.equal(initial, other) for other in initials):
            raise PromptError(
                "`prompt.initializer` must start the sets of a pool apart, since equal sets stay "
                f"equal, but is {initializer.kind!r}."
            )
        initials.append(initial)
        network = generator(seed, "initialization", "network", *path)
        sets.append(ROWS.load(rows.kind)(initial, network, **rows.options))
    mixture = POOLS.load(pool.kind)(
        sets, width, generator(seed, "initialization", "pool"), **pool.options
    )
    place = POSITIONS.load(position.kind)(
        length, width, generator(seed, "initialization", "position"), **position.options
    )
    return Prompt(mixture, place).to(backbone.device)


def build_model(config: RunConfig, backbone: Backbone, format: TaskFormat) -> Model:
    """Build a run's prompt and readout in their first state.

    Args:
        config: a resolved configuration.
        backbone: the loaded backbone.
        format: the task's labels and templates.

    Raises:
        SoftPromptsError: if the parts do not fit each other; the text says which and why.
    """
    words = tuple(format.verbalizer.get(label, label) for label in format.labels)
    prompt = build_prompt(config.prompt, backbone, words, config.seed)
    length = config.prompt.length or 0
    setting = Setting(
        backbone=backbone,
        format=format,
        tokenization=Tokenization(backbone, length, config.task.max_tokens),
        generator=generator(config.seed, "initialization", "readout"),
    )
    readout = READOUTS.load(config.readout.kind)(setting, **config.readout.options)
    model = Model(prompt, readout.to(backbone.device))
    if not model.num_parameters:
        raise PromptError(
            f"a run must have something to train, but a prompt of length {length} with the "
            f"{config.readout.kind!r} readout has nothing."
        )
    return model


def build_optimizer(config: TrainingConfig, model: Model) -> Optimizer:
    """Build the optimizer; the prompt's group is the first, where there is a prompt."""
    groups: list[dict[str, Any]] = []
    for module, rate in (
        (model.prompt, config.learning_rate),
        (model.readout, config.readout_learning_rate),
    ):
        parameters = [p for p in module.parameters() if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "lr": rate, "initial_lr": rate})
    optimizer: Optimizer = OPTIMIZERS.load(config.optimizer.kind)(
        groups, **config.optimizer.options
    )
    return optimizer


def build_plan(config: TrainingConfig, num_examples: int, seed: int) -> Plan:
    """Turn epochs and fractions into steps.

    Args:
        config: a resolved training configuration.
        num_examples: rows to train on.
        seed: the run's seed.
    """
    per_update = config.batch_size * config.accumulation_steps
    per_epoch = -(-num_examples // per_update)
    total = config.steps if config.steps is not None else (config.epochs or 0) * per_epoch
    count = min(config.num_evaluations, total)
    schedule = SCHEDULES.load(config.schedule.kind)
    temperature = TEMPERATURES.load(config.temperature.kind)
    return Plan(
        seed=seed,
        total_steps=total,
        batch_size=config.batch_size,
        accumulation_steps=config.accumulation_steps,
        clip_norm=float("inf") if config.clip_norm is None else config.clip_norm,
        evaluation_steps=frozenset(round(total * (i + 1) / count) for i in range(count)),
        checkpoint_every_steps=config.checkpoint_every_steps or 0,
        patience=float("inf") if config.patience is None else config.patience,
        factor=partial(schedule, total_steps=total, **config.schedule.options),
        temperature=partial(temperature, total_steps=total, **config.temperature.options),
    )


def choose_splits(config: RunConfig, task: Task) -> dict[str, tuple[Any, ...]]:
    """Return the rows to train on, to select on and to report, by split.

    Selection never sees the reported rows: it uses the task's own held-out rows, or a part of
    the training rows that is then not trained on.

    Raises:
        DataError: if the reported rows have no labels, or too few rows are left.
    """
    train, held_out = task.train, task.held_out
    if config.training.selection == "last":
        held_out = ()
    elif not held_out:
        train, held_out = split_held_out(train, config.training.held_out_fraction, config.seed)
    for name, rows in (("train", train), (task.validation_name, task.validation)):
        if not rows:
            raise DataError(f"split {name!r} of {task.format.name} must have rows, but is empty.")
        bare = [row for row in rows if not row.answers]
        if bare:
            raise DataError(
                f"split {name!r} of {task.format.name} must have labels, but "
                f"{len(bare)} of {len(rows)} rows have none, {bare[0].source or 'the first'} "
                "among them."
            )
    return {"train": train, "held_out": held_out, "validation": task.validation}
