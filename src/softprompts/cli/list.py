"""`softprompts list`: what a recipe may name."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompts.cli.output import print_json, print_sections
from softprompts.errors import UnknownNameError

if TYPE_CHECKING:
    from softprompts.registry import Registry


class Kind(StrEnum):
    """What can be listed."""

    METHODS = "methods"
    TASKS = "tasks"
    BACKBONES = "backbones"
    ROWS = "rows"
    POOLS = "pools"
    POSITIONS = "positions"
    ACTIVE_LENGTHS = "active-lengths"
    DEPTHS = "depths"
    INITIALIZERS = "initializers"
    ADAPTATIONS = "adaptations"
    READOUTS = "readouts"
    REGULARIZERS = "regularizers"
    PERTURBATIONS = "perturbations"
    OPTIMIZERS = "optimizers"
    SCHEDULES = "schedules"
    TEMPERATURES = "temperatures"
    AVERAGES = "averages"
    SAMPLINGS = "samplings"
    EXECUTORS = "executors"
    TRACKERS = "trackers"
    RECIPES = "recipes"


def list_components(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND]", help=f"One of {', '.join(Kind)}; all when left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all options.")] = False,
) -> None:
    """List what a recipe may name, and the shipped recipes."""
    if kind is not None and kind not in list(Kind):
        from softprompts.registry import unknown_name

        raise UnknownNameError(unknown_name("kind", kind, [one.value for one in Kind]))
    kinds = list(Kind) if kind is None else [Kind(kind)]
    found = {one.value: catalogue(one) for one in kinds}
    if as_json:
        print_json(found)
        return
    print_sections(
        {
            heading: [(item["name"], item["summary"], item["reference"]) for item in items]
            for heading, items in found.items()
        }
    )


def catalogue(kind: Kind) -> list[dict[str, Any]]:
    """Return what is known of every component of one kind.

    Args:
        kind: the kind.

    Returns:
        One mapping per component, with at least `name`, `summary` and `reference`.
    """
    if kind is Kind.METHODS:
        from softprompts.recipes.presets import METHODS

        choices = ("rows", "pool", "position", "initializer", "length", "adaptation")
        axes = ("name", "summary", "reference", *choices)
        return [{axis: getattr(preset, axis) for axis in axes} for preset in METHODS.values()]
    if kind is Kind.RECIPES:
        from softprompts.recipes.loading import shipped_recipes

        return [
            {"name": name, "summary": _first_comment(file.read_text("utf-8")), "reference": ""}
            for name, file in shipped_recipes().items()
        ]
    return [
        {
            "name": entry.name,
            "summary": entry.summary,
            "reference": entry.reference,
            "version": entry.version,
            "options": entry.schema.model_json_schema().get("properties", {}),
            **(_task_format(entry.name) if kind is Kind.TASKS else {}),
        }
        for entry in _registry(kind)
    ]


def _registry(kind: Kind) -> Registry[Any]:
    from softprompts.recipes.registries import component_registry
    from softprompts.tasks.registry import TASKS

    return TASKS if kind is Kind.TASKS else component_registry(kind)


def _task_format(name: str) -> dict[str, Any]:
    """Return how a task is scored; nothing for a task whose options decide it."""
    from softprompts.tasks.listing import task_format

    form = task_format(name)
    if form is None:
        return {}
    return {"labels": list(form.labels), "metrics": list(form.metrics)}


def _first_comment(text: str) -> str:
    lines: Iterable[str] = text.splitlines()
    return next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")
