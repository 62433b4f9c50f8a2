"""From plain data to a checked run, with every problem found at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from softprompts.problems import Problem, broken, describe, dotted, refuse, show
from softprompts.recipes.checks import combination_problems
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.task_checks import NO_TASK

_STAND_INS: Mapping[str, Mapping[str, str]] = {
    "backbone": {"name": "minilm"},
    "task": {"name": "bundled/sentiment"},
}
_LARGEST = 1e30
_COMPONENTS = frozenset({"readout", "adaptation"})
"""Fields beside the sections that hold a component."""


def parse_run(data: Any, source: str = "recipe") -> RunConfig:
    """Return the checked run that `data` describes, not resolved, or raise every problem."""
    config, problems = read_run(data)
    refuse(problems, source)
    assert config is not None
    return config


def parse_kept_run(data: Any, source: str) -> RunConfig:
    """Return the run that a folder's `config.json` describes; see `parse_run`.

    Rows had no unit before the field `prompt.unit` came: where it is missing, they are absolute.
    """
    return parse_run(with_unit(data, "absolute"), source)


def with_unit(data: Any, unit: str) -> Any:
    """Return a run's plain data with `prompt.unit`, where its prompt does not say any."""
    if not isinstance(data, Mapping) or not isinstance(data.get("prompt", {}), Mapping):
        return data
    return {**data, "prompt": {"unit": unit, **data.get("prompt", {})}}


def read_run(data: Any) -> tuple[RunConfig | None, list[Problem]]:
    """Return the run that `data` describes, `None` when a field is wrong, and every problem.

    Combinations are checked among the fields that are right by themselves.
    """
    if not isinstance(data, Mapping):
        text = f"a recipe must be a mapping, but is {show(data)}."
        return None, [Problem(("recipe",), text)]
    if extreme := list(_extreme_numbers(data, ())):
        return None, extreme
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        found = _with_task(data, describe(error, data, RunConfig))
        wrong = [field for problem in found for field in problem.fields]
        partial = _sound_part(data, wrong)
        if any(field.split(".")[0] == "mixture" for field in wrong):
            wrong.append("task")  # a stand-in took the mixture's place
        others = [] if partial is None else combination_problems(partial)
        return None, found + [item for item in others if not overlaps(item.fields, wrong)]
    return config, combination_problems(config)


def _extreme_numbers(value: Any, path: tuple[str, ...]) -> Iterator[Problem]:
    """Find numbers that leave float32 as soon as anything is done with them."""
    if isinstance(value, float) and _LARGEST < abs(value) < math.inf:
        yield broken(f"be a number between ±{_LARGEST:g}", value, dotted(path))
    elif isinstance(value, Mapping | list | tuple):
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in inner:
            yield from _extreme_numbers(one, (*path, str(key)))


def _with_task(data: Mapping[str, Any], found: Sequence[Problem]) -> list[Problem]:
    """Return problems of fields with that of a missing task in the place of a field's."""
    is_missing = data.get("task") is None and data.get("mixture") is None
    first = [item for item in found if item.fields[0].split(".")[0] == "backbone"]
    rest = [item for item in found if item not in first]
    return [*first, *([NO_TASK] if is_missing else []), *rest]


def overlaps(fields: Iterable[str], others: Sequence[str]) -> bool:
    """Return whether a field is one of the others, lies in one, or holds one."""
    return any(
        field == other or field.startswith(f"{other}.") or other.startswith(f"{field}.")
        for field in fields
        for other in others
    )


def _sound_part(data: Mapping[str, Any], wrong: Sequence[str]) -> RunConfig | None:
    """Return the run without its wrong fields, or without their sections if it must be."""
    for depth in (2, 1):
        part: dict[str, Any] = copy.deepcopy(dict(data))
        for field in wrong:
            section, *names = field.split(".")[:depth]
            held = part.get(section)
            if names and isinstance(held, dict) and section not in _COMPONENTS:
                held.pop(names[0], None)
            else:
                part.pop(section, None)
        for section, stand_in in _STAND_INS.items():
            if section == "task" and part.get("mixture") is not None:
                continue
            held = part.setdefault(section, {})
            if isinstance(held, dict):
                part[section] = {**stand_in, **held}
        try:
            return RunConfig.model_validate(part)
        except ValidationError:
            continue
    return None
