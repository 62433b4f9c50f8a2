"""From what a recipe says to what a run does: every axis explicit."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompts.backbones.adaptations.registry import ADAPTATIONS
from softprompts.component import Component, ComponentOf
from softprompts.errors import RecipeError
from softprompts.problems import refuse
from softprompts.prompts.registry import DEPTHS
from softprompts.recipes.checks import adaptation_kind, combination_problems
from softprompts.recipes.component_fields import ADAPTATION, AXES
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.presets import METHODS, NO_PROMPT
from softprompts.recipes.prompt_checks import prompt_problems, rate_multipliers, spelled_length
from softprompts.recipes.schema import PromptConfig, RunConfig
from softprompts.recipes.sources import (
    num_rows_of,
    pinned,
    source_problems,
    with_pinned_rows,
    with_pinned_vectors,
)
from softprompts.recipes.training_config import (
    ABSOLUTE_LEARNING_RATE,
    DEFAULT_EPOCHS,
    LEARNING_RATE,
    TrainingConfig,
    multiplier_field,
)


def resolve(config: RunConfig) -> RunConfig:
    """Return the same run with every axis of the prompt, and what else it leaves open, spelled out.

    An axis that the recipe names wins over the method's. Without rows the axes say nothing, so they
    are the plain ones; nor does `training` where nothing is trained, but for the rows held out.
    Resolving again changes nothing.
    """
    refuse(combination_problems(config))
    training = config.training
    is_silent = training.epochs is None and training.steps is None
    epochs = DEFAULT_EPOCHS if is_silent else training.epochs
    adaptation = _chosen(config.adaptation, ADAPTATION, adaptation_kind(config))
    rate = training.backbone_learning_rate
    if rate is None:
        rate = ADAPTATIONS.entry(adaptation.kind).defaults.get("backbone_learning_rate")
    prompt = resolve_prompt(config.prompt)
    if METHODS[config.prompt.method].is_trained:
        spelled_out = {"epochs": epochs, "backbone_learning_rate": rate}
        training = training.model_copy(update=spelled_out | _prompt_rates(training, prompt))
    else:
        training = _untrained(training)
    mixture = config.mixture
    if mixture is not None:  # a recipe's order changes nothing
        mixture = mixture.model_copy(update={"tasks": dict(sorted(mixture.tasks.items()))})
    return config.model_copy(
        update={
            "mixture": mixture,
            "prompt": prompt,
            "adaptation": adaptation,
            "regularizers": with_pinned_vectors(config.regularizers),
            "training": training,
        }
    )


def resolve_prompt(prompt: PromptConfig) -> PromptConfig:
    """Return the same prompt with every axis spelled out, as `resolve` does for a run."""
    refuse([*source_problems(prompt), *prompt_problems(prompt)])
    length = spelled_length(prompt)
    source = pinned(prompt.from_run)
    if source is not None and prompt.length is None and METHODS[prompt.method].length == "text":
        length = num_rows_of(Path(source.folder))
    preset = METHODS[prompt.method] if length else NO_PROMPT
    axes = {
        name: _chosen(getattr(prompt, name), axis, getattr(preset, name))
        for name, axis in AXES.items()
    }
    axes["initializer"] = with_pinned_rows(axes["initializer"])
    context = prompt.context or METHODS[prompt.method].context
    unit = prompt.unit if length else "absolute"
    others = {"length": length, "from_run": source, "context": context, "unit": unit}
    return prompt.model_copy(update={**others, **axes})


def default_rate(depth: str) -> float:
    """Return the learning rate of rows of a depth in their unit, where a recipe is silent."""
    return float(DEPTHS.entry(depth).defaults.get("learning_rate", LEARNING_RATE))


def _prompt_rates(training: TrainingConfig, prompt: PromptConfig) -> dict[str, Any]:
    """Return the learning rates of a prompt's parts; in absolute numbers all have that of rows."""
    is_relative = prompt.unit == "relative"
    rates: dict[str, Any] = {"learning_rate": training.learning_rate}
    if training.learning_rate is None:
        assert prompt.depth is not None
        own = default_rate(prompt.depth.kind)
        rates["learning_rate"] = own if is_relative else ABSOLUTE_LEARNING_RATE
    every = rate_multipliers(prompt) | training.multipliers if is_relative else {}
    further = {}
    for group, value in every.items():
        if (field := multiplier_field(group)) in TrainingConfig.model_fields:
            rates[field] = value
        else:
            further[group] = value
    rates["rate_multipliers"] = further or None
    return rates


def _untrained(training: TrainingConfig) -> TrainingConfig:
    """Return what a run does that trains nothing: no update, on the rows that others train on."""
    kept = {name: getattr(training, name) for name in ("selection", "held_out_fraction")}
    return TrainingConfig(learning_rate=ABSOLUTE_LEARNING_RATE, **kept)


def _chosen(component: Component | None, axis: ComponentOf, kind: str) -> Component:
    return axis.build(kind) if component is None else component


def value_and_default(data: Mapping[str, Any], field: str) -> tuple[Any, Any]:
    """Return what a field is in a run recipe, and what it would be if the recipe did not say.

    Both are plain JSON values, everything spelled out. A default is `None` where the recipe is
    wrong without the field, or has none there. A part of the field that is a number counts the
    entries of a list from 0.

    Example:
        >>> data = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}
        >>> value_and_default({**data, "prompt": {"length": 3}}, "prompt.length")
        (3, 10)
    """
    own, rest = value_of(data, field), copy.deepcopy(dict(data))
    section, _, key = field.rpartition(".")
    holder = _at(rest, section.split(".") if section else ())
    if isinstance(holder, dict):
        holder.pop(key, None)
    try:
        return own, value_of(rest, field)
    except RecipeError:
        return own, None


def value_of(data: Mapping[str, Any], field: str) -> Any:
    """Return what a field is in a run recipe; see `value_and_default`."""
    return _at(resolve(parse_run(data)).model_dump(mode="json"), field.split("."))


def _at(data: Any, path: Sequence[str]) -> Any:
    """Return the value at the end of a path; `None` where the path ends early."""
    for part in path:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        else:
            return None
    return data
