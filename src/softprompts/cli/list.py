"""`softprompts list`: what a recipe may name."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from softprompts.cli.output import print_json, print_sections
from softprompts.errors import UnknownNameError

KINDS: Final = (
    *("methods", "tasks", "backbones", "rows", "pools", "positions", "active-lengths", "depths"),
    *("initializers", "adaptations", "readouts", "regularizers", "perturbations", "optimizers"),
    *("schedules", "temperatures", "averages", "samplings", "executors", "trackers", "recipes"),
)
"""What can be listed."""


def list_components(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS)}; all when left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all options.")] = False,
) -> None:
    """List what a recipe may name, and the shipped recipes."""
    if kind is not None and kind not in KINDS:
        from softprompts.registry import unknown_name

        raise UnknownNameError(unknown_name("kind", kind, KINDS))
    found = {one: catalogue(one) for one in (KINDS if kind is None else [kind])}
    if as_json:
        print_json(found)
        return
    cells = ("name", "summary", "reference")
    print_sections({one: [[item[c] for c in cells] for item in found[one]] for one in found})


def catalogue(kind: str) -> list[dict[str, Any]]:
    """Return the name, summary, reference and more of every component of one kind."""
    if kind == "methods":
        from softprompts.recipes.presets import METHODS

        choices = ("rows", "pool", "position", "initializer", "length", "adaptation")
        axes = ("name", "summary", "reference", *choices)
        return [{axis: getattr(preset, axis) for axis in axes} for preset in METHODS.values()]
    if kind == "recipes":
        from softprompts.recipes.loading import shipped_recipes

        return [
            {"name": name, "summary": _first_comment(file.read_text("utf-8")), "reference": ""}
            for name, file in shipped_recipes().items()
        ]
    from softprompts.recipes.component_fields import component_registry
    from softprompts.tasks.registry import TASKS, task_format

    found = []
    for entry in TASKS if kind == "tasks" else component_registry(kind):
        about = {name: getattr(entry, name) for name in ("name", "summary", "reference", "version")}
        about["options"] = entry.schema.model_json_schema().get("properties", {})
        form = task_format(entry.name) if kind == "tasks" else None
        if form is not None:  # else its options decide how it is scored
            about |= {"labels": list(form.labels), "metrics": list(form.metrics)}
        found.append(about)
    return found


def _first_comment(text: str) -> str:
    lines = (line for line in text.splitlines() if line.startswith("#"))
    return next(lines, "").lstrip("# ").rstrip()
