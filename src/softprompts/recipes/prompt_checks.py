"""Combinations of a prompt's fields that are refused, and what its axes come to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from softprompts.problems import Problem, broken
from softprompts.recipes.component_fields import AXES
from softprompts.recipes.presets import METHODS, NO_PROMPT, NUM_ROWS
from softprompts.recipes.schema import PromptConfig
from softprompts.recipes.task_checks import counts_problem

LENGTH_FIELDS = ("prompt.length", "prompt.method")
"""Where a recipe says the number of rows."""


def prompt_length(prompt: PromptConfig) -> int:
    """Return the number of rows, the least one where a text tells it."""
    length = spelled_length(prompt)
    return NUM_ROWS if length == "text" else length


def spelled_length(prompt: PromptConfig) -> int | Literal["text"]:
    """Return the number of rows: the recipe's, or the preset's where it is silent."""
    length = METHODS[prompt.method].length if prompt.length is None else prompt.length
    is_open = length == "text" and prompt.length is None
    return NUM_ROWS if is_open and not _may_tell_length(prompt) else length


def _may_tell_length(prompt: PromptConfig) -> bool:
    """Return whether rows are one set that starts from a text, not a run, with no choice in it."""
    fixed = (
        axis_kind(prompt, name) == AXES[name].default
        for name in ("pool", "position", "active_length")
    )
    kind = axis_kind(prompt, "initializer")
    is_new = prompt.from_run is None and all(fixed)
    return is_new and bool(AXES["initializer"].registry.entry(kind).fact("has_text"))


def prompt_problems(prompt: PromptConfig) -> Iterator[Problem]:
    """Find what is wrong between the fields of a prompt that are each right."""
    length, preset = prompt_length(prompt), METHODS[prompt.method]
    if prompt.length == "text" and not _may_tell_length(prompt):
        yield Problem(
            ("prompt.length", "prompt.initializer", "prompt.method"),
            "`prompt.length` must be a number unless a single set of rows starts from a text, and "
            "both its position and its active length are fixed, but is 'text'.",
        )
    if preset.is_length_fixed and length != preset.length:
        rule = f"be {preset.length} or left out with method {preset.name}"
        yield broken(rule, length, *LENGTH_FIELDS)
    if length == 0 and any(getattr(preset, axis) != getattr(NO_PROMPT, axis) for axis in AXES):
        yield Problem(
            LENGTH_FIELDS,
            f"`prompt.length` must be at least 1 with method {preset.name}, but is 0. "
            "A run without rows is method head-only.",
        )
    split = _options(prompt, "position").get("split")
    if split is not None and split > length:
        rule = f"be at most `prompt.length`, {length}"
        yield broken(rule, split, *LENGTH_FIELDS, "prompt.position", name="prompt.position.split")
    yield from _counts_problems(prompt, length)
    yield from _depth_problems(prompt)
    yield from _instance_problems(prompt)
    for name, axis in AXES.items():
        chosen = getattr(prompt, name)
        if length == 0 and chosen is not None and chosen != axis.build(getattr(NO_PROMPT, name)):
            rule = "be left out when `prompt.length` is 0, since there are no rows"
            yield broken(rule, chosen, f"prompt.{name}", *LENGTH_FIELDS)


def _options(prompt: PromptConfig, axis: str) -> dict[str, Any]:
    """Return the options that a recipe says on an axis."""
    chosen = getattr(prompt, axis)
    return {} if chosen is None else dict(chosen.options)


def _counts_problems(prompt: PromptConfig, length: int) -> Iterator[Problem]:
    counts = _options(prompt, "position").get("counts")
    problem = counts_problem(length, counts) if counts is not None and length else ""
    if problem:
        yield Problem((*LENGTH_FIELDS, "prompt.position"), problem)
    for name in ("count", "start"):
        count = _options(prompt, "active_length").get(name)
        if count is not None and count > length:
            rule, field = f"be at most `prompt.length`, {length}", "prompt.active_length"
            yield broken(rule, count, *LENGTH_FIELDS, field, name=f"{field}.{name}")


def is_deep(prompt: PromptConfig) -> bool:
    """Return whether rows are read in every layer; imports the depth, but for the default one."""
    kind = axis_kind(prompt, "depth")
    return kind != AXES["depth"].default and not axis_class(prompt, "depth").is_input


def _depth_problems(prompt: PromptConfig) -> Iterator[Problem]:
    position, kind = prompt.position, axis_kind(prompt, "position")
    plain = AXES["position"].build({})
    is_plain = kind == plain.kind if position is None else position == plain
    if not is_plain and is_deep(prompt):
        rule = (
            "be left out with depth every-layer, since keys and values have no place in the input"
        )
        value = position if position else kind
        yield broken(rule, value, "prompt.position", "prompt.depth", "prompt.method")


def axis_kind(prompt: PromptConfig, axis: str) -> str:
    """Return the kind that a prompt has on an axis: the recipe's, or the preset's."""
    chosen = getattr(prompt, axis)
    kind: str = getattr(METHODS[prompt.method], axis) if chosen is None else chosen.kind
    return kind


def axis_class(prompt: PromptConfig, axis: str) -> Any:
    """Return the class that a prompt has on an axis, which says what it needs; imports torch."""
    return AXES[axis].registry.load(axis_kind(prompt, axis))


def rate_multipliers(prompt: PromptConfig) -> dict[str, float]:
    """Return the default multiplier of each group of parameters that has a rate of its own."""
    found: dict[str, float] = {}
    for name, axis in AXES.items() if prompt_length(prompt) else ():
        found = axis.registry.entry(axis_kind(prompt, name)).rate_multipliers | found
    return found


def looks_at_instances(prompt: PromptConfig) -> bool:
    """Return whether a prompt looks at instance vectors; imports its classes."""
    axes = ("pool", "position", "active_length")
    return prompt_length(prompt) > 0 and any(axis_class(prompt, a).needs_instances for a in axes)


def _instance_problems(prompt: PromptConfig) -> Iterator[Problem]:
    if prompt.instance != "states" and not looks_at_instances(prompt):
        reason = "as pool attention or position instance do"
        rule = f"be left out where nothing looks at instance vectors, {reason}"
        others = ("prompt.pool", "prompt.position", "prompt.method")
        yield broken(rule, prompt.instance, "prompt.instance", *others)
