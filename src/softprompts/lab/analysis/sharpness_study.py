"""The sharpness of every run of a study: a row per run, each measured once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from softprompts.errors import SoftPromptsError
from softprompts.lab.analysis.sharpness import VERSION, Effort, measure_sharpness
from softprompts.lab.analysis.subjects import Sample
from softprompts.recipes.grid import expand
from softprompts.recipes.study import parse_kept_study
from softprompts.storage import is_there, make_folder, read_json, read_record, write_json
from softprompts.training.resources import Resources

KEYS = ("variant", "point", "task", "seed", "identity")
"""What every row has; one that was measured has the measures too, another an `error`."""

Told = Callable[[Mapping[str, Any]], None]


def study_sharpness(
    study: Path, sample: Sample, effort: Effort, told: Told | None = None
) -> list[dict[str, Any]]:
    """Measure the sharpness of every finished run of a study.

    What was measured is kept in `STUDY/analysis/sharpness/<identity>.json` and not measured again
    with the same sample and effort; so an interrupted call goes on where it stopped. Runs are
    measured task by task, and backbones, tasks and encoded rows are loaded once.

    Args:
        study: the study's folder.
        sample: the rows that losses are taken on.
        effort: what is measured.
        told: is given each row as it is ready.

    Returns:
        A row per run, in the study's order. A run that is not finished, diverged or cannot be
        measured has an `error`.

    Raises:
        SoftPromptsError: if the folder holds no study, or a result cannot be kept.
    """
    resources = Resources()
    return [_row(study, about, (sample, effort), resources, told) for about in study_runs(study)]


def study_runs(study: Path) -> Iterator[dict[str, Any]]:
    """Return what names each run of a study: see `KEYS`.

    Args:
        study: the study's folder.

    Raises:
        SoftPromptsError: if the folder holds no study.
    """
    content = read_record(study / "study.json", ["name", "base"])
    for cell in expand(parse_kept_study(content, str(study / "study.json"))):
        values = (cell.variant, cell.point, cell.task, cell.config.seed, cell.identity)
        yield dict(zip(KEYS, values, strict=True))


def _row(
    study: Path,
    about: dict[str, Any],
    wanted: tuple[Sample, Effort],
    resources: Resources,
    told: Told | None,
) -> dict[str, Any]:
    """Return the row of one run, measured now or before."""
    sample, effort = wanted
    run = study / "runs" / about["identity"]
    try:
        found = kept_sharpness(run, study / "analysis" / "sharpness", sample, effort, resources)
    except SoftPromptsError as error:
        found = {"error": " ".join(str(error).split())}
    row = {**found, **about}
    if told is not None:
        told(row)
    return row


def kept_sharpness(
    run: Path, kept: Path, sample: Sample, effort: Effort, resources: Resources
) -> dict[str, Any]:
    """Return a run's sharpness from a folder, or measure it and keep it there.

    Args:
        run: the run's folder, named by its identity.
        kept: the folder of what was measured.
        sample: the rows that the loss is taken on.
        effort: what is measured.
        resources: shares backbones, tasks and encoded rows between runs.

    Raises:
        SoftPromptsError: if the run cannot be measured, or the result not be kept.
    """
    key = _key(sample, effort)
    path = kept / f"{run.name}.json"
    before: dict[str, Any] = {}
    if is_there(path):
        before = read_json(path)
        if key in before:
            return dict(before[key])
    found = measure_sharpness(run, sample, effort, resources)
    make_folder(kept)
    write_json(path, {**before, key: found})
    return found


def _key(sample: Sample, effort: Effort) -> str:
    """Return what tells apart measures of one run."""
    wanted = [VERSION, asdict(sample), asdict(effort)]
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
