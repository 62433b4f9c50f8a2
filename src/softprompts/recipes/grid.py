"""From a study to its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softprompts.errors import RecipeError
from softprompts.problems import refuse
from softprompts.recipes.identity import identity
from softprompts.recipes.overrides import place
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.study import StudyConfig, merged, points, study_problems


@dataclass(frozen=True)
class Cell:
    """One resolved run of a study: a variant at a point of the grid.

    `task` is the name that the grid gives the task, else its registry name, or the names of a
    mixture's tasks; `identity` is what `softprompts.recipes.identity.identity` says.
    """

    variant: str
    point: dict[str, Any]
    task: str
    config: RunConfig
    identity: str


def expand(study: StudyConfig) -> tuple[Cell, ...]:
    """Return every run of a study: variants outermost, then points of the grid, seeds innermost.

    Every problem of every run is raised, each said once; so are the variants and points that are
    the same run under two names.
    """
    source = study.name or "study"
    refuse(study_problems(study), source)
    cells: list[Cell] = []
    for variant, point in points(study):
        config = resolve(parse_run(merged(study, variant, point), source))
        task = task_of(point, config)
        for seed in study.seeds:
            seeded = config.model_copy(update={"seed": seed})
            cells.append(Cell(variant, dict(point), task, seeded, identity(seeded)))
    if twins := _twins(cells):
        raise RecipeError(twins, source)
    return tuple(cells)


def task_of(point: Mapping[str, Any], config: RunConfig) -> str:
    """Return what tables call the task of a run at a point of the grid."""
    named = point.get("task")  # a task that has no name is a mapping
    return named if isinstance(named, str) else config.task_label


def _twins(cells: Sequence[Cell]) -> list[str]:
    """Return one sentence per pair of variants or points that are the same run."""
    first: dict[str, Cell] = {}
    found: dict[str, None] = {}
    for cell in cells:
        twin = first.setdefault(cell.identity, cell)
        if twin is not cell:
            names = f"({place(twin.variant, twin.point)}) and ({place(cell.variant, cell.point)})"
            found[f"runs must differ, but {names} are the same run."] = None
    return list(found)
