"""The section on what a study is: its whole configuration, and how to make it again."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import yaml

from softprompts.lab.reports.pages import Part, Section
from softprompts.lab.reports.study_record import StudyRecord
from softprompts.recipes.loading import load_recipe, shipped_recipes
from softprompts.recipes.study import StudyConfig, with_kept_unit
from softprompts.storage import is_there, read_record
from softprompts.training.stored import Made, check_stored


def recipe_section(record: StudyRecord) -> Section:
    """Return the section with recipe, resolved configurations, versions and commands."""
    name = file_name(record.name)
    recipe, is_own = recipe_text(record), not _is_shipped(record)
    given = shlex.quote(f"{name}.yaml" if is_own else record.name)
    said = "Save the recipe, and run it." if is_own else "The recipe comes with the library."
    command = f"softprompts study {given} --out {shlex.quote(f'studies/{name}')}"
    texts = (
        ("The recipe", recipe, recipe.count("\n") < 60),
        ("Every field of every variant, spelled out", _resolved(record), False),
        ("Versions, weights and data", _versions(record), False),
    )
    parts = [
        Part("text", f"{said} The same command again goes on where it stopped."),
        *([Part("file", recipe, f"{name}.yaml")] if is_own else []),
        Part("code", command, "Command"),
    ]
    for title, text, is_open in texts:
        parts += [Part("fold", [Part("code", text, title)], title, is_open)] if text else []
    written = f"softprompts report {shlex.quote(str(record.path))}"
    parts += [Part("note", "This page was written by"), Part("code", written, "Command")]
    return Section("recipe", "Configuration", parts)


def recipe_text(record: StudyRecord) -> str:
    """Return the study as a recipe that makes the same runs."""
    content = record.study.model_dump(mode="json")
    return _as_yaml({key: value for key, value in content.items() if value is not None})


def _as_yaml(content: Any) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))


def file_name(name: str) -> str:
    """Return a name that is safe as that of a file.

    Example:
        >>> file_name("a/b & c")
        'a-b-c'
    """
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip(".-") or "study"


def _is_shipped(record: StudyRecord) -> bool:
    """Return whether the study is a recipe that comes with the library, unchanged."""
    if record.name not in shipped_recipes():
        return False
    shipped = load_recipe(record.name)
    assert isinstance(shipped, StudyConfig)
    return with_kept_unit(shipped) == record.study


def _resolved(record: StudyRecord) -> str:
    """Return the resolved run of each variant at the first point of the grid, without its seed."""
    found: dict[str, Any] = {}
    for entry in record.whole_entries:
        run = entry.cells[0].config.model_dump(mode="json")
        del run["seed"]
        found.setdefault(entry.variant, run)
    first, *others = found
    text = {first: found[first], **{n: _changes(found[first], found[n]) for n in others}}
    grid = json.dumps(record.study.grid, ensure_ascii=False)
    lead = f"# the first variant whole, then what differs from it; grid: {grid}\n"
    return lead + _as_yaml(text)


def _changes(base: Any, other: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(other, dict)):
        return other
    keys = [key for key in other if key not in base or base[key] != other[key]]
    found = {key: _changes(base.get(key), other[key]) for key in keys}
    return found | {key: None for key in base if key not in other}


def _versions(record: StudyRecord) -> str:
    """Return what runs say of the software, weights and rows they were made with."""
    lines: dict[str, None] = {}
    kept = ("dtype", "attention", "backbone_fingerprint", "data_digest")
    for entry, cell in record.runs:
        path = record.folder(cell) / "config.json"
        if is_there(path):
            about = read_record(path, ["identity"])
            check_stored(path, about, Made)
            versions = ", ".join(f"{k} {v}" for k, v in (about.get("versions") or {}).items())
            said = ", ".join(f"{key} {about[key]}" for key in kept if key in about)
            lines[f"{entry.task}: {versions}; {said}"] = None
    return "\n".join(lines)
