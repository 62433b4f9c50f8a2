"""Landscapes of several finished runs, on the same axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from softprompts.errors import PromptError
from softprompts.lab.analysis.planes import Grid, is_pair, look, path_between
from softprompts.lab.analysis.seed_planes import are_seeds, plane_through
from softprompts.lab.analysis.subjects import Sample, Subject, load_subject
from softprompts.training.resources import Resources


def measure_landscapes(
    folders: Sequence[Path],
    sample: Sample,
    grid: Grid,
    told: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Look at the loss around finished runs, and between those that follow each other.

    Args:
        folders: the runs' folders.
        sample: the rows that losses are taken on.
        grid: where to look; the same for all runs, so that they can be compared.
        told: is told, in words, what is looked at.

    Returns:
        What JSON can hold: `runs`, each with its `spaces`; `paths` between runs that follow each
        other and are two seeds of one method on one task; `seed_planes` through three such runs,
        `runs` their numbers; and `sample` and `grid`. A space that a run does not have is missing,
        with the reason in `left_out`.

    Raises:
        SoftPromptsError: if a run cannot be read.
    """
    resources = Resources()
    subjects = [load_subject(folder, sample, resources) for folder in folders]
    runs = [_look_at(subject, grid, told) for subject in subjects]
    paths = []
    for (number, first), (other, second) in pairwise(enumerate(subjects)):
        if is_pair(first, second):
            told(f"path from {first.about['folder']} to {second.about['folder']}")
            found = path_between(first, second, grid.num_line_points)
            paths.append({"first": number, "second": other, **found})
    planes = _planes(subjects, grid, told) if "prompt" in grid.spaces else []
    about = {"sample": asdict(sample), "grid": asdict(grid)}
    return {**about, "runs": runs, "paths": paths, "seed_planes": planes}


def _planes(
    subjects: Sequence[Subject], grid: Grid, told: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Look at the planes through three seeds that follow each other, each run in one of them."""
    found, number = [], 0
    while number + 3 <= len(subjects):
        three = subjects[number : number + 3]
        if are_seeds(three):
            told(f"plane through {', '.join(one.about['folder'] for one in three)}")
            plane = plane_through(three, grid.num_points)
            found.append({"runs": [number, number + 1, number + 2], **plane})
        number += 3 if are_seeds(three) else 1
    return found


def _look_at(subject: Subject, grid: Grid, told: Callable[[str], None]) -> dict[str, Any]:
    """Look at every space of one run."""
    about = {name: value for name, value in subject.about.items() if name != "prompt"}
    found: dict[str, Any] = {**about, "num_examples": subject.num_examples}
    found |= {"spaces": {}, "left_out": {}}
    for space in grid.spaces:
        told(f"{space} space of {subject.about['folder']}")
        try:
            found["spaces"][space] = look(subject, space, grid)
        except PromptError as error:
            found["left_out"][space] = str(error)
    return found
