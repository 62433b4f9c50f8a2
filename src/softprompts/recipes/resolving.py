"""From what a recipe says to what a run does: every axis explicit."""

from __future__ import annotations

from softprompts.errors import RecipeError
from softprompts.recipes.checks import combination_problems, prompt_length, prompt_problems
from softprompts.recipes.component import Component, ComponentOf
from softprompts.recipes.presets import METHODS, Preset
from softprompts.recipes.schema import (
    DEFAULT_EPOCHS,
    INITIALIZER_AXIS,
    POOL_AXIS,
    POSITION_AXIS,
    ROWS_AXIS,
    PromptConfig,
    RunConfig,
)

_NEUTRAL = Preset("none", "no prompt", length=0)


def resolve(config: RunConfig) -> RunConfig:
    """Return the same run with every axis of the prompt, and epochs or steps, spelled out.

    An axis that the recipe names wins over the method's. Without rows the axes say nothing, so they
    are the plain ones.

    Args:
        config: a run.

    Returns:
        An equal run; resolving it again changes nothing.

    Raises:
        RecipeError: if fields that are each right do not go together.
    """
    problems = combination_problems(config)
    if problems:
        raise RecipeError([problem.text for problem in problems])
    training = config.training
    is_silent = training.epochs is None and training.steps is None
    epochs = DEFAULT_EPOCHS if is_silent else training.epochs
    return config.model_copy(
        update={
            "prompt": resolve_prompt(config.prompt),
            "training": training.model_copy(update={"epochs": epochs}),
        }
    )


def resolve_prompt(prompt: PromptConfig) -> PromptConfig:
    """Return the same prompt with every axis spelled out, as `resolve` does for a run.

    Args:
        prompt: a prompt.

    Returns:
        An equal prompt; resolving it again changes nothing.

    Raises:
        RecipeError: if fields that are each right do not go together.
    """
    problems = [problem.text for problem in prompt_problems(prompt)]
    if problems:
        raise RecipeError(problems)
    length = prompt_length(prompt)
    preset = METHODS[prompt.method] if length else _NEUTRAL
    return prompt.model_copy(
        update={
            "length": length,
            "initializer": _chosen(prompt.initializer, INITIALIZER_AXIS, preset.initializer),
            "rows": _chosen(prompt.rows, ROWS_AXIS, preset.rows),
            "pool": _chosen(prompt.pool, POOL_AXIS, preset.pool),
            "position": _chosen(prompt.position, POSITION_AXIS, preset.position),
        }
    )


def _chosen(component: Component | None, axis: ComponentOf, kind: str) -> Component:
    return axis.build(kind) if component is None else component
