"""What one field alone cannot tell: combinations that are refused, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from softprompts.backbones.registry import BACKBONES
from softprompts.problems import Problem, broken, show
from softprompts.readouts.registry import READOUTS
from softprompts.recipes.component_fields import AXES, TEMPERATURE
from softprompts.recipes.presets import METHODS
from softprompts.recipes.prompt_checks import (
    LENGTH_FIELDS,
    axis_class,
    axis_kind,
    is_deep,
    looks_at_instances,
    prompt_length,
    prompt_problems,
    rate_multipliers,
)
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.sources import source_problems, word_vector_problems
from softprompts.recipes.task_checks import (
    known_marks,
    mark_problems,
    task_problems,
    task_template_problems,
    writing_problems,
)
from softprompts.recipes.training_config import (
    ABSOLUTE_LEARNING_RATE,
    DEFAULT_READOUT_LEARNING_RATE,
    LEARNING_RATE,
    TrainingConfig,
    multiplier_field,
)
from softprompts.regularizers.registry import PERTURBATIONS, REGULARIZERS


def combination_problems(config: RunConfig) -> list[Problem]:
    """Return what is wrong between fields that are each right, in recipe order."""
    return [
        *_revision_problems(config),
        *_spreading_problems(config),
        *task_problems(config),
        *source_problems(config.prompt),
        *task_template_problems(config),
        *writing_problems(config),
        *_mark_problems(config),
        *_readout_problems(config),
        *_context_problems(config),
        *prompt_problems(config.prompt),
        *_adaptation_problems(config),
        *_regularizer_problems(config),
        *word_vector_problems(config.regularizers),
        *_training_problems(config),
    ]


def _mark_problems(config: RunConfig) -> Iterator[Problem]:
    """Find marks that the prompt does not fill; its position is imported where there are some."""
    prompt, found = config.prompt, known_marks(config)
    is_plain = axis_kind(prompt, "position") == AXES["position"].default
    if is_plain and not any(marks for _, _, marks in found):
        return
    position = axis_class(prompt, "position")
    is_marked = position.needs_marks and prompt_length(prompt) > 0
    for task in found:
        yield from mark_problems(config, task, prompt_length(prompt), is_marked)


def _revision_problems(config: RunConfig) -> Iterator[Problem]:
    """Find a revision of what is bundled; whether another name is a hub id, loading tells."""
    backbone = config.backbone
    if backbone.revision is not None and backbone.name in BACKBONES:
        rule = f"be left out for {backbone.name!r}, which is bundled"
        yield broken(rule, backbone.revision, "backbone.revision", "backbone.name")


def _spreading_problems(config: RunConfig) -> Iterator[Problem]:
    """Find what a backbone cannot do that is spread over devices."""
    backbone = config.backbone
    spreads = backbone.device_map is not None
    refused = [
        ("backbone.device", "auto", backbone.device, "which says where each module lies"),
        ("backbone.compile", False, backbone.compile, "whose modules move their inputs when run"),
        ("adaptation", "none", adaptation_kind(config), "whose weights may lie outside of memory"),
    ]
    for field, allowed, found, reason in refused if spreads else ():
        if found != allowed:
            rule = f"be {show(allowed)} with `backbone.device_map`, {reason}"
            yield broken(rule, found, field, "backbone.device_map", "prompt.method")
    if backbone.max_memory is not None and not isinstance(backbone.device_map, str):
        rule = "be left out unless `backbone.device_map` is a strategy, such as auto"
        yield broken(rule, backbone.max_memory, "backbone.max_memory", "backbone.device_map")


def _multiplier_problems(config: RunConfig) -> Iterator[Problem]:
    prompt = config.prompt
    known = rate_multipliers(prompt) if prompt.unit == "relative" else {}
    for group, value in config.training.multipliers.items():
        if group not in known:
            field = f"training.{multiplier_field(group)}"
            rule = "be left out where the prompt has no part of that sort or is absolute"
            yield broken(rule, value, field, "prompt.unit", "prompt.method")


def adaptation_kind(config: RunConfig) -> str:
    """Return what is trained of the backbone: what the recipe says, or the preset."""
    chosen = config.adaptation
    return METHODS[config.prompt.method].adaptation if chosen is None else chosen.kind


def _adaptation_problems(config: RunConfig) -> Iterator[Problem]:
    kind, length = adaptation_kind(config), prompt_length(config.prompt)
    rate = config.training.backbone_learning_rate
    if kind != "none" and length:
        reason = "since a prompt is trained on a frozen backbone"
        rule = f"be left out when `prompt.length` is {length}, {reason}"
        yield broken(rule, kind, "adaptation", *LENGTH_FIELDS)
    if kind == "none" and rate is not None:
        field = "training.backbone_learning_rate"
        reason = "which all methods but fine-tuning and lora leave it"
        rule = f"be left out where the backbone is frozen, {reason}"
        yield broken(rule, rate, field, "adaptation", "prompt.method")


def _regularizer_problems(config: RunConfig) -> Iterator[Problem]:
    for number, regularizer in enumerate(config.regularizers):
        options, field = regularizer.options, f"regularizers.{number}"
        if options.get("consistency") == "ce" and options.get("is_clean_live"):
            reason = "which looks at the label instead of the clean prediction"
            rule = f"be left out with consistency ce, {reason}"
            yield broken(rule, True, field, name=f"{field}.is_clean_live")
        if options.get("instances") == "perturbed" and not looks_at_instances(config.prompt):
            yield Problem(
                ("prompt.pool", "prompt.position", "prompt.method", field),
                f"`{field}.instances` must be left out where nothing looks at instance vectors, as "
                "pool attention or position instance do, but is perturbed.",
            )
        length = prompt_length(config.prompt)
        if length == 0 and REGULARIZERS.load(regularizer.kind).needs_rows:
            rule = "be left out when `prompt.length` is 0, since there are no rows"
            yield broken(rule, regularizer.kind, field, *LENGTH_FIELDS)
        elif is_deep(config.prompt) and REGULARIZERS.load(regularizer.kind).needs_embeddings:
            rule = "be left out with depth every-layer, whose rows are no embeddings"
            yield broken(rule, regularizer.kind, field, "prompt.depth", "prompt.method")
        perturbation, num_copies = options.get("perturbation"), options.get("num_copies", 1)
        if perturbation is not None and num_copies > 1 and _draws_nothing(perturbation):
            rule = "be 1 with a perturbation that draws nothing, whose copies would be the same"
            yield broken(rule, num_copies, field, name=f"{field}.num_copies")


def _draws_nothing(perturbation: dict[str, Any]) -> bool:
    """Return whether a perturbation is found from the clean input alone."""
    return perturbation.get("is_free") is True or not PERTURBATIONS.load(perturbation["kind"]).draws


def _readout_problems(config: RunConfig) -> Iterator[Problem]:
    is_bare = prompt_length(config.prompt) == 0 and adaptation_kind(config) == "none"
    method = config.prompt.method
    is_bare = is_bare and is_trained(config)
    if is_bare and not READOUTS.entry(config.readout.kind).fact("has_parameters"):
        yield Problem(
            (*LENGTH_FIELDS, "readout", "adaptation"),
            "`readout` must have trainable parameters when `prompt.length` is 0, since nothing "
            f"else is trained, as linear has, but is {show(config.readout.kind)}. A run that "
            "trains nothing is method zero-shot, instruction or in-context.",
        )
    if not is_trained(config) and READOUTS.entry(config.readout.kind).fact("has_parameters"):
        untrained = sorted(entry.name for entry in READOUTS if not entry.fact("has_parameters"))
        rule = f"be {' or '.join(untrained)} with method {method}, which trains nothing"
        yield broken(rule, config.readout.kind, "readout", "prompt.method")
    if not is_trained(config) and config.regularizers:
        yield Problem(
            ("regularizers", "prompt.method"),
            f"`regularizers` must be left out with method {method}, which trains nothing, but are "
            f"{len(config.regularizers)}.",
        )
    if not is_trained(config) and adaptation_kind(config) != "none":
        rule = f"be left out with method {method}, which trains nothing"
        yield broken(rule, adaptation_kind(config), "adaptation", "prompt.method")


def is_trained(config: RunConfig) -> bool:
    """Return whether a run trains something; else its first state is scored."""
    return METHODS[config.prompt.method].is_trained


def _context_problems(config: RunConfig) -> Iterator[Problem]:
    """Find text in front that the method does not put there."""
    prompt = config.prompt
    own = METHODS[prompt.method].context
    if prompt.context not in (None, own):
        rule = f"be left out with method {prompt.method}"
        yield broken(rule, prompt.context, "prompt.context", "prompt.method")
    if prompt.num_demonstrations is not None and own != "demonstrations":
        rule = f"be left out with method {prompt.method}, which shows none, as in-context does"
        yield broken(rule, prompt.num_demonstrations, "prompt.num_demonstrations", "prompt.method")


def rate_problems(config: RunConfig) -> list[Problem]:
    """Find a learning rate of rows that somebody gave a run that trains something else.

    The two defaults pass: a run that was resolved, and saved as a recipe, spells one of them out.
    """
    rate, prompt = config.training.learning_rate, config.prompt
    is_idle = METHODS[prompt.method].is_trained and not prompt_length(prompt)
    if not is_idle or rate in (None, LEARNING_RATE, ABSOLUTE_LEARNING_RATE):
        return []
    rule = "be left out where there are no rows; a backbone has `training.backbone_learning_rate`"
    others = ("prompt.method", "training.backbone_learning_rate", "training.readout_learning_rate")
    return [broken(rule, rate, "training.learning_rate", *others)]


def _training_problems(config: RunConfig) -> Iterator[Problem]:
    training, readout = config.training, config.readout.kind
    if training.steps is not None and training.epochs is not None:
        yield Problem(
            ("training.epochs", "training.steps"),
            "`training.epochs` must be left out when `training.steps` is set, "
            f"but is {training.epochs} (with {training.steps} steps).",
        )
    if training.selection == "last" and training.patience is not None:
        rule = "be left out when `training.selection` is last"
        yield broken(rule, training.patience, "training.patience", "training.selection")
    yield from _schedule_problems(training)
    yield from _multiplier_problems(config)
    is_changed = training.temperature != TEMPERATURE.build({})
    if is_changed and not any(
        axis_class(config.prompt, axis).draws for axis in ("pool", "position", "active_length")
    ):
        rule = "be left out with a fixed position and length, since nothing is selected"
        others = ("prompt.position", "prompt.active_length", "prompt.method")
        yield broken(rule, training.temperature, "training.temperature", *others)
    is_changed = training.readout_learning_rate != DEFAULT_READOUT_LEARNING_RATE
    if is_changed and not READOUTS.entry(readout).fact("has_parameters"):
        rule = f"be left out with readout {readout}, which has nothing to train"
        value, field = training.readout_learning_rate, "training.readout_learning_rate"
        yield broken(rule, value, field, "readout")


def _schedule_problems(training: TrainingConfig) -> Iterator[Problem]:
    """Find schedules that do not do what their names say."""
    warmup = warmup_problem(training, training.steps)
    if warmup:
        yield Problem(("training.schedule", "training.steps"), warmup)
    options = training.temperature.options
    if {"start", "floor"} <= options.keys() and options["start"] < options["floor"]:
        rule, field = (
            f"be at least the floor that it falls to, {options['floor']}",
            "training.temperature",
        )
        yield broken(rule, options["start"], field, name=f"{field}.start")


def warmup_steps(training: TrainingConfig, steps: int) -> int:
    """Return the updates of warm-up in a run of so many updates."""
    options = training.schedule.options
    return int(options.get("warmup_steps") or options.get("warmup_fraction", 0.0) * steps)


def warmup_problem(training: TrainingConfig, steps: int | None) -> str:
    """Return what is wrong with a warm-up that a run does not get through, or "".

    `steps` is `None` where only the number of rows tells.
    """
    options = training.schedule.options
    if options.get("warmup_steps") and options.get("warmup_fraction"):
        return (
            "`training.schedule.warmup_fraction` must be left out beside `warmup_steps`, but is "
            f"{options['warmup_fraction']}."
        )
    warmup = 0 if steps is None else warmup_steps(training, steps)
    if steps is None or warmup < steps or not warmup:
        return ""
    return (
        f"`training.schedule.warmup_steps` must be less than the {steps} updates of the run, which "
        f"else never trains at its learning rate, but is {warmup}."
    )
