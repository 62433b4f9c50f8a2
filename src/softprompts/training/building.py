"""The one builder: a recipe becomes flat, typed arguments here, and nothing below sees a recipe."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch.optim import Optimizer

from softprompts.backbones.adaptations.registry import ADAPTATIONS
from softprompts.backbones.backbone import Backbone
from softprompts.component import Component
from softprompts.encoding.template import num_marks
from softprompts.encoding.tokenization import Tokenization
from softprompts.errors import DataError, PromptError, RecipeError
from softprompts.examples import TaskFormat
from softprompts.prompts.positions.marked import MarkedPosition
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.sharing import check_marks
from softprompts.readouts.base import Readout, Setting
from softprompts.readouts.registry import READOUTS
from softprompts.recipes.checks import is_trained, warmup_problem, warmup_steps
from softprompts.recipes.component_fields import SAMPLING
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.training_config import TrainingConfig
from softprompts.seeding import generator
from softprompts.tasks.base import Task
from softprompts.tasks.sampling import split_held_out
from softprompts.training.plan import Plan
from softprompts.training.prompt_building import build_prompts
from softprompts.training.registry import (
    AVERAGES,
    OPTIMIZERS,
    SAMPLINGS,
    SCHEDULES,
    TEMPERATURES,
)
from softprompts.training.trainable import Model, Track, per_task


def build_model(
    config: RunConfig, backbone: Backbone, format: TaskFormat | Mapping[str, TaskFormat]
) -> Model:
    """Build a run's prompts and readouts in their first state.

    Args:
        config: a resolved configuration.
        backbone: the loaded backbone.
        format: the task's labels and templates; by name where there are several tasks.

    Raises:
        SoftPromptsError: if the parts do not fit each other; the text says which and why.
    """
    if config.adaptation is None:
        raise PromptError("`adaptation` must be resolved before it is built.")
    formats = per_task(config, format, "formats")
    readout_kind = READOUTS.load(config.readout.kind)
    words = tuple(dict.fromkeys(word for own in formats.values() for word in _label_words(own)))
    said = {_instruction(config, name, own) for name, own in formats.items()}
    prompts = build_prompts(
        config.prompt,
        backbone,
        words,
        config.seed,
        tuple(formats),
        readout_kind.needs_head,
        instruction=said.pop() if len(said) == 1 else "",
    )
    tracks: dict[str, Track] = {}
    for name, own in formats.items():
        readout = _build_readout(config, name, backbone, own, prompts[name], not tracks)
        _check_template(config, name, prompts[name], readout)
        tracks[name] = Track(prompts[name], readout, own)
    adaptation = ADAPTATIONS.load(config.adaptation.kind)(**config.adaptation.options)
    adapted = adaptation.adapt(backbone, readout_kind.needs_head, config.seed)
    is_mixture = config.mixture is not None
    model = Model(tracks, adapted.backbone, adapted.parameters, is_mixture)
    if not model.num_parameters and is_trained(config):
        length, kind = config.prompt.length, config.readout.kind
        raise PromptError(
            f"a run must have something to train, but a prompt of length {length} with the "
            f"{kind!r} readout has nothing."
        )
    return model


def _instruction(config: RunConfig, name: str, format: TaskFormat) -> str:
    own = config.tasks[name].instruction
    return format.instruction if own is None else own


def _label_words(format: TaskFormat) -> Iterable[str]:
    return (format.verbalizer.get(label, label) for label in format.labels)


def _build_readout(
    config: RunConfig,
    name: str,
    backbone: Backbone,
    format: TaskFormat,
    prompt: Prompt,
    is_first: bool,
) -> Readout:
    """Build one task's readout; what the first task draws is what a run of one task draws."""
    takes_places = prompt.depth.is_input or backbone.family == "decoder"
    length = prompt.length if takes_places else 0
    path = () if is_first else ("task", name)
    task, after_bos = config.tasks[name], prompt.position.after_bos
    format = replace(format, instruction=_instruction(config, name, format))
    setting = Setting(
        backbone=backbone,
        format=format,
        tokenization=Tokenization(backbone, length, task.max_tokens, after_bos=after_bos),
        generator=generator(config.seed, "initialization", "readout", *path),
        context=config.prompt.context,
    )
    readout = READOUTS.load(config.readout.kind)(setting, **config.readout.options)
    return readout.to(backbone.device)


def _check_template(config: RunConfig, name: str, prompt: Prompt, readout: Readout) -> None:
    """Check that the template is the run's, and that its marks fit the prompt."""
    template, wanted = getattr(readout, "template", None), config.tasks[name].template
    source = None if template is None else template.source
    if wanted is not None and source != wanted:
        place = config.task_fields[name]
        raise DataError(
            f"task {name} must be loaded with the run's `{place}.template`, {wanted!r}, but "
            f"its template is {source!r}."
        )
    if source is not None:
        position = prompt.position
        counts = position.counts if isinstance(position, MarkedPosition) else None
        check_marks(
            prompt.length,
            num_marks(source),
            f"template {source!r}",
            is_marked=position.needs_marks,
            counts=counts,
        )


def build_optimizer(config: TrainingConfig, model: Model) -> Optimizer:
    """Build the optimizer; the rows' group is the first, where there is a prompt.

    Args:
        config: a resolved training configuration.
        model: what is trained.

    Raises:
        PromptError: if something is trained that has no learning rate.
    """
    rate = config.learning_rate
    if rate is None:
        raise PromptError("`training` must be resolved before it is built.")
    found = model.groups
    rates = {
        **dict.fromkeys(found, rate),
        **{group: rate * multiplier for group, multiplier in config.multipliers.items()},
        "backbone": config.backbone_learning_rate,
        "readout": config.readout_learning_rate,
    }
    if not config.multipliers:  # one rate, one group
        others = {name: found[name] for name in ("backbone", "readout")}
        found = {"rows": model.prompt_parameters, **others}
    groups: list[dict[str, Any]] = []
    for name, parameters in found.items():
        if parameters and rates[name] is None:
            raise PromptError(
                "`training.backbone_learning_rate` must be given for an adaptation that has no "
                "default, but is null."
            )
        if parameters:
            groups.append({"params": parameters, "lr": rates[name], "initial_lr": rates[name]})
    if not groups:  # nothing is trained
        groups = [{"params": [], "lr": rate, "initial_lr": rate}]
    optimizer: Optimizer = OPTIMIZERS.load(config.optimizer.kind)(
        groups, **config.optimizer.options
    )
    return optimizer


def build_plan(
    config: TrainingConfig, num_examples: int, seed: int, sampling: Component | None = None
) -> Plan:
    """Turn epochs and fractions into steps.

    Args:
        config: a resolved training configuration.
        num_examples: rows to train on, of all tasks together.
        seed: the run's seed.
        sampling: how often each task is drawn; by size when `None`.

    Raises:
        RecipeError: if the learning rate's warm-up is as long as the run.
    """
    sampling = sampling or SAMPLING.build({})
    per_update = config.batch_size * config.accumulation_steps
    per_epoch = -(-num_examples // per_update)
    total = config.steps if config.steps is not None else (config.epochs or 0) * per_epoch
    problem = warmup_problem(config, total)
    if problem:
        raise RecipeError([problem])
    count = min(config.num_evaluations, total)
    schedule, options = SCHEDULES.load(config.schedule.kind), config.schedule.options
    if options.pop("warmup_fraction", None):
        options["warmup_steps"] = warmup_steps(config, total)
    temperature = TEMPERATURES.load(config.temperature.kind)
    average = None
    if config.average is not None:
        average = partial(
            AVERAGES.load(config.average.kind), total_steps=total, **config.average.options
        )
    return Plan(
        seed=seed,
        total_steps=total,
        batch_size=config.batch_size,
        accumulation_steps=config.accumulation_steps,
        clip_norm=float("inf") if config.clip_norm is None else config.clip_norm,
        evaluation_steps=frozenset(round(total * (i + 1) / count) for i in range(count)),
        checkpoint_every_steps=config.checkpoint_every_steps or 0,
        patience=float("inf") if config.patience is None else config.patience,
        factor=_by_step(partial(schedule, total_steps=total, **options), total),
        average=average,
        temperature=_by_step(
            partial(temperature, total_steps=total, **config.temperature.options), total
        ),
        sampling=partial(SAMPLINGS.load(sampling.kind), **sampling.options),
    )


def _by_step(value: Callable[[int], float], total_steps: int) -> Callable[[int], float]:
    """Return a table of a function of the updates done; also of the first, where there is none."""
    return array("d", map(value, range(max(total_steps, 1)))).__getitem__


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
