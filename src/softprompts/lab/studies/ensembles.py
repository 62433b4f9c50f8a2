"""Ensembles of a study's runs: disjoint groups of seeds, scored once on the reported rows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, final

from softprompts.backbones.backbone import Backbone
from softprompts.errors import DataError, RunFolderError
from softprompts.lab.analysis.statistics import spread
from softprompts.lab.ensemble_folder import FILE, describe_members, kept_summary, write_ensemble
from softprompts.lab.ensembles import Ensemble
from softprompts.lab.reports.ensemble_section import keep_ensembles, kept_ensembles
from softprompts.lab.reports.study_record import Entry, StudyRecord, point_label, read_study
from softprompts.recipes.grid import Cell
from softprompts.results import Result, load
from softprompts.storage import entries, is_there, lock, make_folder, remove_parts
from softprompts.tasks.base import Example, Task
from softprompts.tasks.sampling import same_rows
from softprompts.training.building import choose_splits
from softprompts.training.journal import read_about
from softprompts.training.resources import Resources


@dataclass(frozen=True)
class _Team:
    """The runs of one group of seeds.

    Attributes:
        cells: the runs, by seed.
        folders: their folders.
        place: where their ensemble is kept, if anywhere.
    """

    cells: tuple[Cell, ...]
    folders: tuple[Path, ...]
    place: Path | None


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
    teams = _place(record, groups, out)
    measuring, found = _Measuring(record, backbone, data_dir), []
    with ExitStack() as stack:
        if out is not None:
            make_folder(out)
            stack.enter_context(lock(out / ".lock"))
        known = [[_known(team) for team in own] for own in teams]  # all before any is measured
        for (entry, _), own, summaries in zip(groups, teams, known, strict=True):
            pairs = zip(own, summaries, strict=True)
            scored = [measuring.measure(team) if one is None else one for team, one in pairs]
            found.append(_line(record, entry, own, scored))
    about = {"variant": variant, "size": size, "cells": found}
    keep_ensembles(study, about)
    folders = [str(team.place) for own in teams for team in own if team.place is not None]
    return {"study": record.name, **about, "folders": folders}


def _choose(
    record: StudyRecord, variant: str, size: int
) -> list[tuple[Entry, list[tuple[Cell, ...]]]]:
    """Return the groups of seeds of every task and grid point of a variant."""
    names = list(record.study.variants)
    if variant not in names:
        raise DataError(f"`--variant` must be one of {', '.join(names)}, but is {variant!r}.")
    if size < 2:
        raise DataError(f"`--size` must be at least 2, but is {size}.")
    found = []
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
        found.append((entry, [tuple(scored[end - size : end]) for end in ends]))
    return found


def _place(
    record: StudyRecord, groups: Sequence[tuple[Entry, list[tuple[Cell, ...]]]], out: Path | None
) -> list[list[_Team]]:
    """Return the teams with the folders that they are kept in."""
    names = list(_names(groups))
    places = [None if out is None else out / name for name in names]
    if out is not None:
        _check_out(record.path, out, names)
    rest = iter(places)
    return [
        [_Team(cells, tuple(map(record.folder, cells)), next(rest)) for cells in own]
        for _, own in groups
    ]


def _names(groups: Sequence[tuple[Entry, list[tuple[Cell, ...]]]]) -> Iterator[str]:
    """Yield the folder of each ensemble, below that which keeps all; of an only one, the same."""
    if sum(len(own) for _, own in groups) == 1:
        yield "."
        return
    seen: dict[str, int] = {}
    for entry, own in groups:
        text = " ".join((entry.task, point_label(entry.line["point"])))
        name = re.sub(r"[^\w.]+", "-", text).strip("-.")[:80]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:  # as long points may be, when they are cut
            name = f"{name}-{seen[name]}"
        yield from (f"{name}-group-{number + 1}" for number in range(len(own)))


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


def _known(team: _Team) -> dict[str, Any] | None:
    """Return what is kept of a team's ensemble; `None` where it is to be measured."""
    if team.place is None:
        return None
    return kept_summary(team.place, describe_members([read_about(one) for one in team.folders]))


def _line(
    record: StudyRecord, entry: Entry, teams: Sequence[_Team], scored: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what JSON can hold of one task and grid point."""
    used = [cell for team in teams for cell in team.cells]
    seeds = [cell.config.seed for cell in used]
    line = entry.line
    kept = ("variant", "task", "point", "majority", "metric", "split", "num_items")
    return {
        **{key: line[key] for key in kept},
        "singles": _spread([record.results[cell.identity]["score"] for cell in used]),
        "best": fmean(one["best"] for one in scored),
        "ensembles": _spread([one["score"] for one in scored]),
        "tokens": fmean(one["tokens"] for one in scored),
        "tokens_of_one": fmean(one["tokens_of_one"] for one in scored),
        "groups": [dict(one) for one in scored],
        "left_out": sorted(set(line["seeds"]) - set(seeds)),
        "without_score": sorted(one["seed"] for one in line["missing"]),
    }


def _spread(scores: Sequence[float]) -> dict[str, Any]:
    found = spread(scores)
    ends = {"min": found.min, "max": found.max}
    return {"scores": list(found.scores), "mean": found.mean, "std": found.std, **ends}


@final
class _Measuring:
    """Loads the runs of teams and scores them; what teams share is loaded once.

    Args:
        record: the study.
        backbone: where the runs' backbone is, if it was moved.
        data_dir: where the tasks' files are, if they moved.
    """

    def __init__(self, record: StudyRecord, backbone: str | None, data_dir: Path | None) -> None:
        self._record, self._source, self._data_dir = record, backbone, data_dir
        self._resources = Resources()
        self._backbone: tuple[Any, Backbone | str | None] = (None, backbone)

    def measure(self, team: _Team) -> dict[str, Any]:
        """Return what a team scores on the reported rows; it is kept where it has a place."""
        joint = Ensemble([self._load(folder) for folder in team.folders])
        scores = [float(self._record.results[cell.identity]["score"]) for cell in team.cells]
        found = {
            "seeds": [member.config.seed for member in joint.members],
            "members": [member.about["identity"] for member in joint.members],
            **self._scores(joint),
            "best": max(scores),
        }
        if team.place is not None and not is_there(team.place / FILE):
            make_folder(team.place)
            remove_parts(team.place)
            write_ensemble(team.place, joint.members, found)
        return found

    def _scores(self, joint: Ensemble) -> dict[str, Any]:
        """Return score and cost on the reported rows of all tasks; each task weighs the same."""
        scores, cuts, sizes, each, forwards, are_same = [], 0, [], [], 0, True
        for name in joint.members[0].config.tasks:
            rows, is_same = self._rows(joint.members, name)
            evaluated, cost = joint.evaluate(rows, name), joint.cost(rows, name)
            scores.append(evaluated.score)
            cuts, are_same = cuts + evaluated.num_cut, are_same and is_same
            sizes.append(len(rows))
            each.append(cost.tokens)
            forwards = max(forwards, cost.num_forwards)
        tokens = sum(a * b for a, b in zip(sizes, each, strict=True)) / sum(sizes)
        return {
            "score": fmean(scores),
            "num_items": sum(sizes),
            "num_cut": cuts,
            "num_forwards": forwards,
            "tokens": tokens,
            "tokens_of_one": tokens / len(joint.members),
            "is_same_data": are_same,
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
        tasks = [self._task(member, name) for member in members]
        pairs = list(zip(members, tasks, strict=True))
        rows = [choose_splits(member.config, task)["validation"] for member, task in pairs]
        is_same = all(task.digest() == member.digest(name) for member, task in pairs)
        return same_rows(rows, "validation"), is_same

    def _task(self, member: Result, name: str) -> Task:
        config = member.config.tasks[name]
        if self._data_dir is not None:
            config = config.model_copy(update={"data_dir": str(self._data_dir)})
        return self._resources.task(config, member.config.seed)
