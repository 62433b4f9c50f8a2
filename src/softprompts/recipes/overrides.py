"""Dotted overrides, such as `training.steps=30`: on the command line and in a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.errors import RecipeError
from softprompts.problems import show
from softprompts.recipes.component_fields import COMPONENT_FIELDS
from softprompts.recipes.reading import read_yaml
from softprompts.recipes.schema import RunConfig

NAMED_FIELDS = frozenset(COMPONENT_FIELDS) - {"training.average"}
"""Fields where a name stands for a mapping, so that an option can be set on it."""


MOST_PARTS = 50


def parse_overrides(texts: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the overrides written as `a.b=v` by dotted field, and what is wrong with others.

    `v` is read as YAML.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for text in texts:
        field, sign, written = text.partition("=")
        field = field.strip()
        if not sign or not all(field.split(".")):
            problems.append(f"an override must look like `a.b=value`, but is {show(text)}.")
        elif _in_run(field) in map(_in_run, values):
            problems.append(
                f"`{field}` must be overridden once, but is given again as {show(text)}."
            )
        elif beaten := [key for key in values if _lies_in(key, field)]:
            problems.append(
                f"`{field}` must come before `{beaten[0]}`, which it would undo, but is given "
                f"after it as {show(text)}."
            )
        else:
            try:
                values[field] = read_yaml(written, f"--set {field}")
            except RecipeError as error:
                problems.extend(f"`{field}`: {problem}" for problem in error.problems)
    return values, problems


def _lies_in(field: str, whole: str) -> bool:
    """Return whether setting `whole` would undo what was set in a field of it."""
    if whole == "base" and field.split(".")[0] in RunConfig.model_fields:
        return True
    if whole.startswith("grid.") and not field.startswith("grid."):
        return f"{_in_run(field)}.".startswith(f"{whole.removeprefix('grid.')}.")
    return field.startswith(f"{whole}.") or _in_run(field).startswith(f"{_in_run(whole)}.")


def _in_run(field: str) -> str:
    """Return what a run calls a field that a study may also call that of its base."""
    return field.removeprefix("base.")


def set_at(data: dict[str, Any], path: Sequence[str], value: Any) -> str:
    """Set a field of nested mappings and lists in place; return what is wrong, or "".

    Mappings on the way are made where there are none, and replaced, not changed, as lists are. A
    component's name becomes a mapping with that `kind`, so that one of its options can be set. A
    number names an entry of a list, from 0.
    """
    whole = ".".join(path)
    if len(path) > MOST_PARTS:
        return f"a field must have at most {MOST_PARTS} parts, but {show(whole)} has {len(path)}."
    node: Any = data
    for index, part in enumerate(path):
        place = ".".join(path[:index])
        is_entry = isinstance(node, list) and part.isdecimal()
        if is_entry and int(part) >= len(node):
            return f"`{whole}` must name one of the entries of `{place}`, but it has {len(node)}."
        if not is_entry and not isinstance(node, dict):
            return f"`{whole}` must lie in a mapping, but `{place}` is {show(node)}."
        key = int(part) if is_entry else part
        if index + 1 == len(path):
            node[key] = value
        else:
            held = node.get(key) if isinstance(node, dict) else node[key]
            node[key] = _opened(held, f"{place}.{part}".removeprefix("."))
            node = node[key]
    return ""


def _opened(held: Any, field: str) -> Any:
    """Return what a field holds as something of its own that a value can be set in, if it can."""
    field = field.removeprefix("base.")
    is_regularizer = field.startswith("regularizers.") and field.count(".") == 1
    if isinstance(held, str) and (field in NAMED_FIELDS or is_regularizer):
        return {"kind": held}
    if held is None or isinstance(held, Mapping):
        return dict(held or {})
    return list(held) if isinstance(held, list) else held


def place(variant: str, point: Mapping[str, Any]) -> str:
    """Return how to name one variant at one point: `plain, task.name 'fewglue/cb'`."""
    return ", ".join([variant, *(f"{field} {show(value)}" for field, value in point.items())])


def listed(places: Sequence[str]) -> str:
    """Return the first few of some places, in brackets, and how many more there are."""
    more = f"; and {len(places) - 3} more" if len(places) > 3 else ""
    return f"(variant {'; '.join(places[:3])}{more})"
