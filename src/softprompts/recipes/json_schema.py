"""JSON Schemas of the two kinds of recipe, for editors.

`python -m softprompts.recipes.json_schema FOLDER` writes them; the committed ones lie in `schema/`.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

from softprompts.encoding.template import ROLES
from softprompts.recipes.model import Section
from softprompts.recipes.presets import METHODS
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.study import StudyConfig
from softprompts.tasks.registry import TASKS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ATTRIBUTE = re.compile(r"^ {8}(\w+): (.+(?:\n {12}.+)*)$", re.MULTILINE)


_TURNS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"role": {"enum": list(ROLES)}, "content": {"type": "string"}},
        "required": ["role", "content"],
        "additionalProperties": False,
    },
}
"""The turns of a chat, as a template may be given."""


def run_schema() -> dict[str, Any]:
    """Return the JSON Schema of a run recipe."""
    schema = RunConfig.model_json_schema()
    parts = schema["$defs"]
    _describe(schema, RunConfig)
    for name in ("task", "mixture"):
        field = schema["properties"][name]
        schema["properties"][name] = {**field.pop("anyOf")[0], "description": field["description"]}
    schema["oneOf"] = [{"required": ["task"]}, {"required": ["mixture"]}]
    parts["PromptConfig"]["properties"]["from_run"]["anyOf"].insert(0, {"type": "string"})
    parts["TaskConfig"]["properties"]["template"]["anyOf"].insert(1, _TURNS)
    parts["TaskConfig"]["properties"]["name"]["enum"] = list(TASKS.names())
    parts["PromptConfig"]["properties"]["method"]["enum"] = list(METHODS)
    return {"$schema": _DIALECT, **schema}


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema of a study recipe; its base is a run recipe that may be partial."""
    schema = StudyConfig.model_json_schema()
    _describe(schema, StudyConfig)
    base = copy.deepcopy(run_schema())
    parts = {**base.pop("$defs"), **schema.pop("$defs")}
    for key in ("$schema", "required", "oneOf", "title"):
        base.pop(key)
    for name in ("BackboneConfig", "TaskConfig", "MixtureConfig"):
        parts[name].pop("required")
    base["properties"].pop("seed")
    base["description"] = schema["properties"]["base"]["description"]
    schema["properties"]["base"] = base
    variant = schema["properties"]["variants"]["additionalProperties"]
    schema["properties"]["variants"]["additionalProperties"] = {
        "anyOf": [variant, {"type": "null"}]
    }
    return {"$schema": _DIALECT, "$defs": parts, **schema}


def write_schemas(folder: Path) -> None:
    """Write `recipe.schema.json` and `study.schema.json` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in (("recipe", run_schema()), ("study", study_schema())):
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{name}.schema.json").write_text(text, encoding="utf-8")


def _describe(schema: dict[str, Any], model: type[Section]) -> None:
    """Move what docstrings say of the fields of a recipe and its sections to the fields.

    A description may go on over further lines, each four spaces deeper than the field's name.
    """
    sections = {one.__name__: one for one in Section.__subclasses__()}
    described = {name: part for name, part in schema["$defs"].items() if name in sections}
    for name, part in {**described, model.__name__: schema}.items():
        text = sections[name].__doc__ or ""
        part["description"] = text.splitlines()[0]
        for field, about in _ATTRIBUTE.findall(text):
            part["properties"][field]["description"] = " ".join(about.split())


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
