"""Ensembles of a study's runs: disjoint groups of seeds, scored once on the reported rows."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, final

from softprompts.backbones.backbone import Backbone
from softprompts.errors import DataError, RunFolderError
from softprompts.examples import Example
from softprompts.lab.analysis.statistics import spread
from softprompts.lab.ensemble_record import (
    FILE,
    check_members,
    describe_members,
    member_folders,
    read_ensemble,
)
from softprompts.lab.ensembles import Ensemble, write_ensemble
from softprompts.lab.reports.ensemble_section import keep_ensembles, kept_ensembles
from softprompts.lab.reports.study_record import Entry, StudyRecord, point_label, read_study
from softprompts.locks import lock
from softprompts.recipes.grid import Cell
from softprompts.results import Result, load
from softprompts.storage import entries, is_there, make_folder, remove_parts
from softprompts.tasks.sampling import same_rows
from softprompts.training.building import choose_splits
from softprompts.training.finished import read_prompt, read_result
from softprompts.training.journal import read_about
from softprompts.training.resources import Resources

_Cells = Sequence[Cell]


def ensemble_study(
    study: Path,
    variant: str,
    size: int,
    out: Path | None = None,
    *,
    backbone: str | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Score ensembles of a variant's runs, for every task and grid point.

    The finished seeds are taken in their order, `size` at a time; seeds that are left over are in
    no ensemble. What was found is kept in the study's `ensembles.json`, for its report.

    Args:
        study: the study's folder.
        variant: the variant.
        size: members of an ensemble.
        out: keeps the ensembles: this folder if there is one, else a folder below it for each.
            Those that it has are read and left as they are.
        backbone: where the runs' backbone is, if it was moved.
        data_dir: where the tasks' files are, if they moved.

    Returns:
        What JSON can hold: `study`, `variant`, `size`, `folders` and, per task and grid point,
        `cells`.

    Raises:
        SoftPromptsError: if variant, size or a folder is wrong, runs are missing, or their members
            or rows do not fit each other.
    """
    record = read_study(study)
    kept_ensembles(study)  # a broken file is told before the work
    groups = _choose(record, variant, size)
    names, every = _names(groups), [cells for _, own in groups for cells in own]
    if out is not None:
        _check_out(record.path, out, names)
    places = [None if out is None else out / name for name in names]
    measuring = _Measuring(record, backbone, data_dir)
    with ExitStack() as stack:
        if out is not None:
            make_folder(out)
            stack.enter_context(lock(out / ".lock"))
        pairs = list(zip(every, places, strict=True))
        known = [_known(record, *pair) for pair in pairs]  # before any work
        scored = (kept or measuring.measure(*pair) for kept, pair in zip(known, pairs, strict=True))
        found = [_line(record, entry, own, list(islice(scored, len(own)))) for entry, own in groups]
    about = {"variant": variant, "size": size, "cells": found}
    keep_ensembles(study, about)
    folders = [str(place) for place in places if place is not None]
    return {"study": record.name, **about, "folders": folders}


def _choose(record: StudyRecord, variant: str, size: int) -> list[tuple[Entry, list[_Cells]]]:
    names = list(record.study.variants)
    if variant not in names:
        raise DataError(f"`--variant` must be one of {', '.join(names)}, but is {variant!r}.")
    if size < 2:
        raise DataError(f"`--size` must be at least 2, but is {size}.")
    found: list[tuple[Entry, list[_Cells]]] = []
    for entry in (one for one in record.whole_entries if one.variant == variant):
        scored = [cell for cell in entry.cells if cell.config.seed in entry.line["seeds"]]
        scored.sort(key=lambda cell: cell.config.seed)
        if len(scored) < size:
            point = point_label(entry.line["point"])
            where = " at ".join(part for part in (f"{variant} on {entry.task}", point) if part)
            raise DataError(
                f"`--size` must be at most the {len(scored)} runs of {where} that have a score, "
                f"but is {size}."
            )
        ends = range(size, len(scored) + 1, size)
        found.append((entry, [scored[end - size : end] for end in ends]))
    return found


def _names(groups: Sequence[tuple[Entry, list[_Cells]]]) -> list[str]:
    """Return the folder of each ensemble, below that which keeps all; of an only one, the same."""
    if [len(own) for _, own in groups] == [1]:
        return ["."]
    seen: Counter[str] = Counter()
    found = []
    for entry, own in groups:
        text = " ".join((entry.task, point_label(entry.line["point"])))
        name = re.sub(r"[^\w.]+", "-", text).strip("-.")[:80]
        seen[name] += 1
        if seen[name] > 1:  # as long points may be, when they are cut
            name = f"{name}-{seen[name]}"
        found += [f"{name}-group-{number + 1}" for number in range(len(own))]
    return found


def _check_out(study: Path, out: Path, names: Sequence[str]) -> None:
    """Check that a folder is new, or that of the same ensembles."""
    runs = Path(os.path.realpath(study / "runs"))
    if Path(os.path.realpath(out)).is_relative_to(runs):
        raise RunFolderError(f"`--out` must lie outside the study's runs, but is {str(out)!r}.")
    wanted = ["members", FILE] if names == ["."] else names
    strangers = [name for name in (entries(out) if is_there(out) else []) if name not in wanted]
    if strangers:
        raise RunFolderError(
            f"{out} must be a new folder, or that of the same ensembles, but holds {strangers[0]}."
        )


def _known(record: StudyRecord, cells: _Cells, place: Path | None) -> dict[str, Any] | None:
    """Return what is kept of a group's ensemble; `None` where it is to be measured."""
    if place is None:
        return None
    if (kept := read_ensemble(place)) is None:
        held = entries(place) if is_there(place) else []
        if held not in ([], ["members"]):
            raise RunFolderError(f"{place} must be a new or empty folder, but holds {held[0]}.")
        return None
    abouts = []
    for folder in member_folders(place):
        abouts.append(read_about(folder))
        read_result(folder, abouts[-1]["identity"])
        read_prompt(folder, abouts[-1])
    check_members(place, kept["members"], abouts)
    runs = [read_about(record.folder(cell)) for cell in cells]
    check_members(place, describe_members(runs), abouts)
    summary: dict[str, Any] | None = kept["summary"]
    return summary


def _line(
    record: StudyRecord, entry: Entry, own: Sequence[_Cells], scored: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    line, used = entry.line, [cell for cells in own for cell in cells]
    kept = ("variant", "task", "point", "majority", "metric", "split", "num_items")
    return {
        **{key: line[key] for key in kept},
        "singles": _spread([record.results[cell.identity]["score"] for cell in used]),
        "best": fmean(one["best"] for one in scored),
        "ensembles": _spread([one["score"] for one in scored]),
        "tokens": fmean(one["tokens"] for one in scored),
        "tokens_of_one": fmean(one["tokens_of_one"] for one in scored),
        "groups": [dict(one) for one in scored],
        "left_out": sorted(set(line["seeds"]) - {cell.config.seed for cell in used}),
        "without_score": sorted(one["seed"] for one in line["missing"]),
    }


def _spread(scores: Sequence[float]) -> dict[str, Any]:
    found = asdict(spread(scores))
    return {key: found[key] for key in ("scores", "mean", "std", "min", "max")}


@final
class _Measuring:
    """Loads the runs of groups and scores them; what groups share is loaded once."""

    def __init__(self, record: StudyRecord, backbone: str | None, data_dir: Path | None) -> None:
        self._record, self._source, self._data_dir = record, backbone, data_dir
        self._resources = Resources()
        self._backbone: tuple[Any, Backbone | str | None] = (None, backbone)

    def measure(self, cells: _Cells, place: Path | None) -> dict[str, Any]:
        """Return what a group scores on the reported rows; it is kept where it has a place."""
        joint = Ensemble([self._load(self._record.folder(cell)) for cell in cells])
        scores = [float(self._record.results[cell.identity]["score"]) for cell in cells]
        found = {
            "seeds": [member.config.seed for member in joint.members],
            "members": [member.about["identity"] for member in joint.members],
            **self._scores(joint),
            "best": max(scores),
        }
        if place is not None and not is_there(place / FILE):
            make_folder(place)
            remove_parts(place)
            write_ensemble(place, joint.members, found)
        return found

    def _scores(self, joint: Ensemble) -> dict[str, Any]:
        """Return score and cost on the reported rows of all tasks; each task weighs the same."""
        found = []
        for name in joint.members[0].config.tasks:
            rows, same = self._rows(joint.members, name)
            found.append((joint.evaluate(rows, name), joint.cost(rows, name), len(rows), same))
        evaluations, costs, sizes, are_same = zip(*found, strict=True)
        tokens = sum(one.tokens * size for one, size in zip(costs, sizes, strict=True)) / sum(sizes)
        return {
            "score": fmean(one.score for one in evaluations),
            "num_items": sum(sizes),
            "num_cut": sum(one.num_cut for one in evaluations),
            "num_forwards": max(cost.num_forwards for cost in costs),
            "tokens": tokens,
            "tokens_of_one": tokens / len(joint.members),
            "is_same_data": all(are_same),
        }

    def _load(self, folder: Path) -> Result:
        about = read_about(folder)
        key = (about["backbone_fingerprint"], about["dtype"], about["config"]["backbone"])
        if self._backbone[0] != key:  # the other one is free before this one is loaded
            self._backbone = (key, self._source)
        result = load(folder, self._backbone[1])
        self._backbone = (key, result.backbone)
        return result

    def _rows(self, members: Sequence[Result], name: str) -> tuple[tuple[Example, ...], bool]:
        """Return the reported rows of a task, and whether runs were reported on the same data."""
        moved = {} if self._data_dir is None else {"data_dir": str(self._data_dir)}
        pairs = []
        for member in members:
            config = member.config.tasks[name].model_copy(update=moved)
            pairs.append((member, self._resources.task(config, member.config.seed)))
        rows = [choose_splits(member.config, task)["validation"] for member, task in pairs]
        is_same = all(task.digest() == member.digest(name) for member, task in pairs)
        return same_rows(rows, "validation"), is_same
