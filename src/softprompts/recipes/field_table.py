"""The tables of the documentation that say what a recipe may hold, made from the schema itself.

`python -m softprompts.recipes.field_table docs` writes them between their markers,
`<!-- table NAME -->` and `<!-- end of table -->`. A test checks that the committed ones are
current.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from softprompts.errors import UnknownNameError
from softprompts.recipes.component_fields import component_kinds, component_registry
from softprompts.recipes.json_schema import run_schema, study_schema
from softprompts.recipes.presets import METHODS
from softprompts.recipes.schema import (
    BackboneConfig,
    MixtureConfig,
    PromptConfig,
    RunConfig,
    TaskConfig,
)
from softprompts.recipes.seeds import MoreSeedsConfig
from softprompts.recipes.study import StudyConfig
from softprompts.recipes.training_config import TrainingConfig
from softprompts.recipes.tuning import TuneConfig
from softprompts.registry import Entry, Registry, unknown_name
from softprompts.tasks.registry import TASKS, task_format

MODELS: Mapping[str, type[BaseModel]] = {
    "run": RunConfig,
    "backbone": BackboneConfig,
    "task": TaskConfig,
    "mixture": MixtureConfig,
    "prompt": PromptConfig,
    "training": TrainingConfig,
    "study": StudyConfig,
    "more_seeds": MoreSeedsConfig,
    "tune": TuneConfig,
}
"""Both recipes and their sections; the table of a run has only its fields outside of them."""
TASK_OPTIONS = {"superglue-options": "superglue/cb", "files-options": "files"}
MARKED = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

_NONE = "–"
_MOST_NAMES = 10


def table(name: str) -> str:
    """Return one table as Markdown, by the name that its marker has."""
    if name in MODELS:
        return _markdown(("field", "values", "default", "meaning"), _fields(name, MODELS[name]))
    if name in ("methods", "tasks"):
        return _methods() if name == "methods" else _tasks()
    if name in TASK_OPTIONS:
        lines = _options(TASKS.entry(TASK_OPTIONS[name]))
        return _markdown(("option", "values", "default", "meaning"), lines)
    kinds = component_kinds()
    if name in kinds:
        return _components(component_registry(name))
    known = [*MODELS, "methods", "tasks", *TASK_OPTIONS, *kinds]
    raise UnknownNameError(unknown_name("table", name, known))


def refreshed(text: str) -> str:
    """Return a page with every marked table made anew."""
    return MARKED.sub(lambda found: found[1] + table(found[2]) + found[3], text)


def _fields(name: str, model: type[BaseModel]) -> list[tuple[str, ...]]:
    schema = run_schema() if model is RunConfig else study_schema()
    is_whole = model in (RunConfig, StudyConfig)
    properties = (schema if is_whole else schema["$defs"][model.__name__])["properties"]
    return [
        (
            f"`{field}`" if is_whole else f"`{name}.{field}`",
            _values(about),
            _field_default(about, model, field),
            about.get("description", ""),
        )
        for field, about in properties.items()
        if model is not RunConfig or field not in MODELS
    ]


def _field_default(schema: Mapping[str, Any], model: type[BaseModel], name: str) -> str:
    """Return a field's default; made ones are not in the schema, so the model is asked."""
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    default = schema.get("default", field.get_default(call_default_factory=True))
    return _code(default.kind if hasattr(default, "kind") else default)


def _components(registry: Registry[Any]) -> str:
    """Return a line per component, followed by a line per option."""
    lines: list[tuple[str, ...]] = []
    for entry in registry:
        about = entry.summary + (f" ({entry.reference})" if entry.reference else "")
        lines.append((f"`{entry.name}`", "", "", "", about))
        lines += [("", *line) for line in _options(entry)]
    if not any(line[1] for line in lines):
        return _markdown(("name", "meaning"), [(line[0], line[4]) for line in lines])
    return _markdown(("name", "option", "values", "default", "meaning"), lines)


def _options(entry: Entry) -> list[tuple[str, ...]]:
    schema = entry.schema.model_json_schema()
    required = schema.get("required", ())
    return [
        (
            f"`{name}`",
            _values(option),
            "required" if name in required else _code(option["default"]),
            option.get("description", ""),
        )
        for name, option in _properties(schema).items()
    ]


def _tasks() -> str:
    lines = []
    for task in TASKS:
        form = task_format(task.name)
        parts = (form.labels, form.metrics) if form else ((), ())
        cells = (", ".join(f"`{name}`" for name in names) or _NONE for names in parts)
        lines.append((f"`{task.name}`", *cells, task.summary))
    return _markdown(("task", "labels", "metrics", "what it asks"), lines)


def _methods() -> str:
    axes = ("rows", "pool", "position", "active_length", "depth", "initializer")
    names = [axis.replace("_", " ") for axis in axes]
    lines = [
        (
            f"`{preset.name}`",
            *(f"`{getattr(preset, axis)}`" if preset.length else _NONE for axis in axes),
            f"{preset.length}{', always' if preset.is_length_fixed else ''}",
            f"`{preset.adaptation}`",
            preset.reference or _NONE,
        )
        for preset in METHODS.values()
    ]
    return _markdown(("method", *names, "length", "adaptation", "reference"), lines)


def _values(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON Schema allows."""
    if "$ref" in schema:
        return "mapping"
    if "anyOf" in schema:
        choices = schema["anyOf"]
        if "enum" in choices[0] and len(choices) > 1 and "kind" in _properties(choices[1]):
            return f"one of {_values(choices[0])}, or a mapping with `kind` and options"
        return " or ".join(dict.fromkeys(map(_values, choices)))
    if len(schema.get("enum", ())) > _MOST_NAMES:
        return "a registered name"
    if "enum" in schema:
        return ", ".join(map(_code, schema["enum"]))
    kind = schema.get("type", "")
    if kind in ("integer", "number"):
        return _range({"integer": "whole number", "number": "number"}[kind], schema)
    if kind == "string" and "pattern" in schema:
        return ", ".join(map(_code, schema["pattern"].strip("^()$").split("|")))
    if kind == "array":
        return f"list of {_plural(schema['items'])}"
    names = {"null": "`null`", "boolean": "`true`, `false`", "string": "text", "object": "mapping"}
    return names[kind]


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema.get("properties", {})
    return found


def _plural(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return "mappings with `kind` and options"
    return {"string": "texts", "integer": "whole numbers"}.get(schema.get("type", ""), "values")


def _range(noun: str, schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([noun, " and ".join(limits)]).strip()


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _markdown(headings: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    cells = [list(headings)]
    cells += [["---"] * len(cells[0]), *map(list, lines)]
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |\n" for row in cells)


if __name__ == "__main__":
    for page in sorted(Path(sys.argv[1]).rglob("*.md")):
        before = page.read_text("utf-8")
        if (after := refreshed(before)) != before:
            page.write_text(after, encoding="utf-8")
