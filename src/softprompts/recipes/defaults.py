"""What a field of a run is where its recipe leaves it out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.errors import RecipeError
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve


def value_and_default(data: Mapping[str, Any], field: str) -> tuple[Any, Any]:
    """Return what a field is in a run, and what it would be if the recipe did not say.

    A part of the field that is a number counts the entries of a list from 0.

    Returns:
        Both as plain JSON values, everything spelled out. A default is `None` where the recipe
        is wrong without the field, or has none there.

    Raises:
        RecipeError: if the recipe is wrong as it is.

    Example:
        >>> data = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}
        >>> value_and_default({**data, "prompt": {"length": 3}}, "prompt.length")
        (3, 10)
    """
    path = field.split(".")
    own = _at(_resolved(data), path)
    try:
        return own, _at(_resolved(_without(data, path)), path)
    except RecipeError:
        return own, None


def _resolved(data: Mapping[str, Any]) -> Any:
    return resolve(parse_run(data)).model_dump(mode="json")


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


def _without(data: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a recipe that does not say a field."""
    rest = copy.deepcopy(dict(data))
    holder = _at(rest, path[:-1])
    if isinstance(holder, dict):
        holder.pop(path[-1], None)
    return rest
