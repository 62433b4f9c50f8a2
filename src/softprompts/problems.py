"""What is wrong with a recipe, in our own sentences.

A problem names the field, the constraint and the value. Pydantic finds most of them; here its
findings are turned into sentences, the branches of a union are joined into one, and unknown keys
get near names.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from softprompts.errors import RecipeError
from softprompts.registry import unknown_name

_LONGEST_VALUE = 80
_ALTERNATIVES = re.compile(r"\^\(([\w|-]+)\)\$")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in a sentence, and all dotted fields that it is about."""

    fields: tuple[str, ...]
    text: str


def refuse(problems: Sequence[Problem], source: str = "recipe") -> None:
    """Raise a `RecipeError` with all problems, if there is any."""
    if problems:
        raise RecipeError([problem.text for problem in problems], source)


def show(value: Any) -> str:
    """Return a value as a recipe would write it, shortened when it is long."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, str):
        text = repr(value)
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def broken(rule: str, value: Any, *fields: str, name: str = "") -> Problem:
    """Return the problem that a field must follow a rule, but is a value.

    It is the first of those that the problem is about, or else the one of that name in one of them.
    """
    return Problem(fields, f"`{name or fields[0]}` must {rule}, but is {show(value)}.")


def dotted(path: Iterable[object]) -> str:
    """Return a path as a recipe's reader writes it: `training.learning_rate`."""
    return ".".join(str(part) for part in path)


def near(name: str, known: Sequence[str]) -> list[str]:
    """Return known names with these initials, as `lr` for `learning_rate`, or else three alike."""
    short = [one for one in known if "".join(part[:1] for part in one.split("_")) == name]
    return short or difflib.get_close_matches(name, known, n=3, cutoff=0.6)


def unknown_key(path: Sequence[object], known: Sequence[str], elsewhere: Sequence[str]) -> str:
    """Return the sentence for an unknown key: with near names, or else with the known keys.

    `elsewhere` has every dotted field of the recipe, to find a key put in the wrong place.
    """
    key, parent = str(path[-1]), list(path[:-1])
    like = [dotted([*parent, name]) for name in near(key, known)]
    like = like or [field for field in elsewhere if field.split(".")[-1] == key][:3]
    if like:
        meant = " or ".join(f"`{name}`" for name in like)
        return f"`{dotted(path)}` is an unknown key; did you mean {meant}?"
    listed = ", ".join(known) or "(none)"
    return f"`{dotted(path)}` is an unknown key; the known keys here are {listed}."


def _pattern(context: Mapping[str, Any]) -> str:
    match = _ALTERNATIVES.fullmatch(context["pattern"])
    if match:
        return "one of " + ", ".join(match[1].split("|"))
    return f"text that matches {context['pattern']}"


def _characters(word: str, count: int) -> str:
    return f"text of {word} {count} character{'' if count == 1 else 's'}"


def _entries(word: str, count: int) -> str:
    return f"a collection of {word} {count} entr{'y' if count == 1 else 'ies'}"


_CONSTRAINTS: Mapping[str, str | Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda c: f"greater than {c['gt']:g}",
    "greater_than_equal": lambda c: f"at least {c['ge']:g}",
    "less_than": lambda c: f"less than {c['lt']:g}",
    "less_than_equal": lambda c: f"at most {c['le']:g}",
    "multiple_of": lambda c: f"a multiple of {c['multiple_of']:g}",
    "finite_number": "a finite number",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    "int_parsing_size": "a whole number of ordinary size",
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "string_type": "text",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "none_required": "null",
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "a mapping"),
    "model_attributes_type": "a mapping",
    **dict.fromkeys(("list_type", "tuple_type", "set_type"), "a list"),
    "invalid_key": "a key made of text",
    "string_too_short": lambda c: _characters("at least", c["min_length"]),
    "string_too_long": lambda c: _characters("at most", c["max_length"]),
    "too_short": lambda c: _entries("at least", c["min_length"]),
    "too_long": lambda c: _entries("at most", c["max_length"]),
    "string_pattern_mismatch": _pattern,
    "literal_error": lambda c: "one of " + re.sub(r" or |, ", ", ", c["expected"].replace("'", "")),
    "constraint": lambda c: str(c["constraint"]),
}


def _constraint(found: ErrorDetails) -> str:
    rule = _CONSTRAINTS.get(found["type"])
    context = found.get("ctx", {})
    if rule is None:
        message = found["msg"].removeprefix("Value error, ").rstrip(".")
        return f"valid ({message[:1].lower()}{message[1:]})"
    return rule if isinstance(rule, str) else rule(context)


def _place(found: ErrorDetails, data: Any, model: type[BaseModel]) -> tuple[int | str, ...]:
    """Return where a finding is, without the names of union branches, which no recipe holds."""
    location = found["loc"]
    section: type[BaseModel] | None = model
    place: list[int | str] = []
    for index, part in enumerate(location):
        field = None if section is None else section.model_fields.get(str(part))
        is_index = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        is_there = is_index or (isinstance(data, Mapping) and part in data)
        is_missing = found["type"] == "missing" and index == len(location) - 1
        if is_there or is_missing or field is not None:
            place.append(part)
            data = data[part] if is_there else None
            section = None if field is None else _section(field.annotation)
    return tuple(place)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field holds, unless its keys are open as a component's are."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if len(kinds) == 1 and NoneType in get_args(annotation):
        (annotation,) = kinds
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None
    return None if annotation.model_config.get("extra") == "allow" else annotation


def _named_section(annotation: Any) -> type[BaseModel] | None:
    """Return the model of each value of a field that holds models by name."""
    return _section(get_args(annotation)[1]) if get_origin(annotation) is dict else None


def known_keys(model: type[BaseModel], path: Sequence[object]) -> tuple[str, ...]:
    """Return the keys that may stand under `path` of `model`; none where it holds no model."""
    parts = iter(path)
    for part in parts:
        field = model.model_fields.get(str(part))
        inner = None if field is None else _section(field.annotation)
        if field is not None and inner is None:
            inner = _named_section(field.annotation)
            if next(parts, None) is None:
                return ()
        if inner is None:
            return ()
        model = inner
    return tuple(model.model_fields)


def field_paths(model: type[BaseModel], prefix: str = "") -> tuple[str, ...]:
    """Return every dotted field of `model`, sections before their fields."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        paths.append(prefix + name)
        inner = _section(field.annotation)
        if inner is not None:
            paths.extend(field_paths(inner, f"{prefix}{name}."))
    return tuple(paths)


def describe(
    error: ValidationError, data: Any, model: type[BaseModel], elsewhere: Sequence[str] = ()
) -> list[Problem]:
    """Return what pydantic found in data, as sentences: one problem per place, in the order found.

    `elsewhere` has dotted fields where a misplaced key may belong; those of `model` by default.
    """
    problems: list[Problem] = []
    constraints: dict[tuple[int | str, ...], list[str]] = {}
    values: dict[tuple[int | str, ...], Any] = {}
    for found in error.errors(include_url=False):
        kind, context = found["type"], found.get("ctx", {})
        place = _place(found, data, model) or ("recipe",)
        name = dotted(place)
        if kind == "missing":
            problems.append(Problem((name,), f"`{name}` must be given, but is missing."))
        elif kind in ("extra_forbidden", "unknown_key"):
            known = context.get("known") or known_keys(model, place[:-1])
            text = unknown_key(place, known, elsewhere or field_paths(model))
            problems.append(Problem((name,), text))
        elif kind == "unknown_name":
            text = unknown_name(f"`{name}`", found["input"], context["known"])
            problems.append(Problem((name,), text))
        elif place in constraints:
            constraints[place].append(_constraint(found))
        else:
            constraints[place] = [_constraint(found)]
            values[place] = found["input"]
            problems.append(Problem((name,), ""))
    texts = {
        dotted(place): f"`{dotted(place)}` must be {' or '.join(dict.fromkeys(rules))}, "
        f"but is {show(values[place])}."
        for place, rules in constraints.items()
    }
    return [item if item.text else Problem(item.fields, texts[item.fields[0]]) for item in problems]


def misfits(model: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """Return what of some values does not fit a model, as sentences; any mapping passes for one."""
    plain = {key: dict(one) if isinstance(one, Mapping) else one for key, one in values.items()}
    try:
        model.model_validate(plain)
    except ValidationError as error:
        return [problem.text for problem in describe(error, plain, model)]
    return []
