"""Landscapes of a study's runs, kept in the study's folder so that its report can show them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from softprompts.storage import entries, is_there, make_folder, read_record, write_json

_KEYS: Final = ("sample", "grid", "runs", "paths")


def study_of(runs: Sequence[Path]) -> Path | None:
    """Return the study that all runs are of, or `None` where there is none.

    Args:
        runs: the runs' folders.
    """
    studies = {run.resolve().parent.parent for run in runs}
    if len(studies) != 1 or any(run.resolve().parent.name != "runs" for run in runs):
        return None
    (study,) = studies
    return study if is_there(study / "study.json") else None


def keep_landscapes(study: Path, found: Mapping[str, Any]) -> Path:
    """Keep landscapes in `STUDY/analysis/landscapes/`; the same look again takes their place.

    Args:
        study: the study's folder.
        found: what `measure_landscapes` returned.

    Returns:
        The file.

    Raises:
        StorageError: if it cannot be written.
    """
    runs = [run["identity"] for run in found["runs"]]
    text = json.dumps([runs, found["sample"], found["grid"]], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = study / "analysis" / "landscapes"
    make_folder(folder)
    bare = [{k: v for k, v in run.items() if k != "folder"} for run in found["runs"]]
    write_json(folder / f"{name}.json", {**found, "runs": bare})
    return folder / f"{name}.json"


def kept_landscapes(study: Path) -> list[dict[str, Any]]:
    """Return the landscapes that are kept in a study's folder.

    Args:
        study: the study's folder.

    Raises:
        StorageError: if one is broken.
    """
    folder = study / "analysis" / "landscapes"
    names = entries(folder) if is_there(folder) else []
    return [read_record(folder / name, _KEYS) for name in names if name.endswith(".json")]
