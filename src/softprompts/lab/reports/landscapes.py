"""Landscapes: names and notes of what they show, and where a study's folder keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from softprompts.storage import entries, is_there, make_folder, read_record, write_json

TITLES: Final = {"input": "Inputs", "prompt": "Prompt rows"}
UNITS: Final = {"input": "RMS of the embedding table", "prompt": "each row's length"}
MOST_RUNS: Final = 12
"""More could not be told apart."""

_KEYS: Final = ("sample", "grid", "runs", "paths")


def names_of(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a short name for each run that tells them apart."""
    names = [
        f"{' + '.join([run['method'], *run.get('regularizers', ())])}, seed {run['seed']}"
        for run in runs
    ]
    if len({run["task"] for run in runs}) > 1:
        names = [f"{name}, {run['task']}" for name, run in zip(names, runs, strict=True)]
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
    held = {space for run in found["runs"] for space in run["spaces"]}
    return [space for space in found["grid"]["spaces"] if space in held]


def scale_of(found: Mapping[str, Any], space: str) -> tuple[float, float]:
    """Return the lowest and the highest loss of all planes of a space."""
    planes = [run["spaces"][space] for run in found["runs"] if space in run["spaces"]]
    losses = [loss for plane in planes for line in plane["losses"] for loss in line]
    return min(losses), max(losses)


def left_out(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return what could not be drawn, and why."""
    return [
        f"{name}: no {TITLES[space].lower()}: {reason}"
        for name, run in zip(names, found["runs"], strict=True)
        for space, reason in run["left_out"].items()
    ]


def without_folders(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return landscapes that do not say where their runs lie."""
    bare = [{k: v for k, v in run.items() if k != "folder"} for run in found["runs"]]
    return {**found, "runs": bare}


def study_of(runs: Sequence[Path]) -> Path | None:
    """Return the study that all runs are of, or `None` where there is none."""
    studies = {run.resolve().parent.parent for run in runs}
    if len(studies) != 1 or any(run.resolve().parent.name != "runs" for run in runs):
        return None
    (study,) = studies
    return study if is_there(study / "study.json") else None


def keep_landscapes(study: Path, found: Mapping[str, Any]) -> Path:
    """Keep landscapes in `STUDY/analysis/landscapes/`; the same look again takes their place.

    Raises:
        StorageError: if it cannot be written.
    """
    runs = [run["identity"] for run in found["runs"]]
    text = json.dumps([runs, found["sample"], found["grid"]], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = study / "analysis" / "landscapes"
    make_folder(folder, is_inner=True)
    write_json(folder / f"{name}.json", without_folders(found))
    return folder / f"{name}.json"


def kept_landscapes(study: Path) -> list[dict[str, Any]]:
    """Return the landscapes that are kept in a study's folder.

    Raises:
        StorageError: if one is broken.
    """
    folder = study / "analysis" / "landscapes"
    names = entries(folder) if is_there(folder) else []
    return [read_record(folder / name, _KEYS) for name in names if name.endswith(".json")]
