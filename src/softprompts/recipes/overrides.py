"""Dotted overrides, such as `training.steps=30`: on the command line and in a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.errors import RecipeError
from softprompts.recipes.problems import show
from softprompts.recipes.reading import read_yaml
from softprompts.recipes.schema import AXES

COMPONENT_FIELDS = frozenset(
    {
        "readout",
        "adaptation",
        "mixture.sampling",
        *(f"prompt.{axis}" for axis in AXES),
        "training.optimizer",
        "training.schedule",
        "training.temperature",
    }
)
"""Fields where a name stands for a mapping, so that an option can be set on it."""


def parse_overrides(texts: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the overrides written as `a.b=v`, and what is wrong with others.

    Args:
        texts: one override each; `v` is read as YAML.

    Returns:
        Values by dotted field, and problems.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for text in texts:
        field, sign, written = text.partition("=")
        field = field.strip()
        if not sign or not all(field.split(".")):
            problems.append(f"an override must look like `a.b=value`, but is {show(text)}.")
        elif field in values:
            problems.append(
                f"`{field}` must be overridden once, but is given again as {show(text)}."
            )
        else:
            try:
                values[field] = read_yaml(written, f"--set {field}")
            except RecipeError as error:
                problems.extend(f"`{field}`: {problem}" for problem in error.problems)
    return values, problems


def set_at(data: dict[str, Any], path: Sequence[str], value: Any) -> str:
    """Set a field of nested mappings in place.

    Mappings on the way are made where there are none. A component's name becomes a mapping with
    that `kind`, so that one of its options can be set.

    Args:
        data: the mappings; those on the way are replaced, not changed.
        path: the keys that lead to the field.
        value: what to put there.

    Returns:
        What is wrong, or "".
    """
    *way, last = path
    node = data
    for index, part in enumerate(way):
        walked = ".".join(path[: index + 1])
        held = node.get(part)
        if isinstance(held, str) and walked.removeprefix("base.") in COMPONENT_FIELDS:
            held = {"kind": held}
        if held is not None and not isinstance(held, Mapping):
            return f"`{'.'.join(path)}` must lie in a mapping, but `{walked}` is {show(held)}."
        node[part] = dict(held or {})
        node = node[part]
    node[last] = value
    return ""
