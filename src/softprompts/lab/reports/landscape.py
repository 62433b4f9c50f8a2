"""What landscapes show, whatever draws them: panels, one scale of colours, and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

TITLES = {"input": "Inputs", "prompt": "Prompt rows"}
UNITS = {"input": "RMS of the embedding table", "prompt": "each row's length"}
MOST_RUNS = 12
"""More could not be told apart."""


@final
@dataclass(frozen=True)
class Scale:
    """What panels of one space share.

    Attributes:
        low: lowest loss of all.
        high: highest loss of all.
    """

    low: float
    high: float


def names_of(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a short name for each run that tells them apart.

    Args:
        runs: as `measure_landscapes` returns them.
    """
    tasks = {run["task"] for run in runs}
    names = [
        f"{run['method']}, seed {run['seed']}" + (f", {run['task']}" if len(tasks) > 1 else "")
        for run in runs
    ]
    if len(set(names)) < len(names):
        names = [f"{name} ({run['identity'][:6]})" for name, run in zip(names, runs, strict=True)]
    return names


def title_of(found: Mapping[str, Any]) -> str:
    """Return what the landscapes are of."""
    tasks = dict.fromkeys(run["task"] for run in found["runs"])
    return f"Loss around trained runs: {', '.join(tasks)}"


def notes_of(found: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know: rows, directions, units."""
    sample, grid = found["sample"], found["grid"]
    counts = sorted({run["num_examples"] for run in found["runs"]})
    rows = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    along = "the gradient" if grid["directions"] == "gradient" else "a random direction"
    return [
        f"mean cross-entropy of {rows} rows of {sample['split']}",
        f"x: along {along}; y: random and orthogonal to it",
    ]


def spaces_of(found: Mapping[str, Any]) -> list[str]:
    """Return the spaces that any run has, in the grid's order."""
    runs = found["runs"]
    return [
        space for space in found["grid"]["spaces"] if any(space in run["spaces"] for run in runs)
    ]


def scale_of(found: Mapping[str, Any], space: str) -> Scale:
    """Return the one scale of all planes of a space."""
    losses = [
        loss
        for run in found["runs"]
        if space in run["spaces"]
        for line in run["spaces"][space]["losses"]
        for loss in line
    ]
    return Scale(min(losses), max(losses))


def left_out(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return what could not be drawn, and why."""
    return [
        f"{name}: no {TITLES[space].lower()}: {reason}"
        for name, run in zip(names, found["runs"], strict=True)
        for space, reason in run["left_out"].items()
    ]
