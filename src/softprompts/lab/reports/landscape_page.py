"""Landscapes on pages: runs on a page of their own, a study in its report."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from softprompts.lab.reports.figures import as_markup
from softprompts.lab.reports.landscape_figures import (
    LONGEST_NAME,
    Group,
    draw_surface,
    groups_of,
    letters_of,
    plotly_js,
)
from softprompts.lab.reports.landscapes import (
    TITLES,
    UNITS,
    kept_landscapes,
    left_out,
    names_of,
    notes_of,
    spaces_of,
    title_of,
    without_folders,
)
from softprompts.lab.reports.pages import Head, Part, Section, page
from softprompts.lab.reports.spelling import printable, short
from softprompts.lab.reports.study_record import StudyRecord, place_columns, place_of
from softprompts.lab.reports.tabular import Column, Table
from softprompts.storage import is_there, read_json

MOST_SURFACES = 8
"""Browsers keep about sixteen surfaces alive; beyond this, planes are flat maps."""


def draw_page(found: Mapping[str, Any]) -> bytes:
    """Return landscapes as a page that needs nothing else.

    Args:
        found: what `measure_landscapes` returned.

    Returns:
        The page, as UTF-8.
    """
    are_surfaces = _has_surfaces([found])
    parts = tuple(_parts(found, "", are_surfaces=are_surfaces))
    head = Head("softprompts landscape", title_of(found))
    program = plotly_js() if are_surfaces else ""
    return page(
        title_of(found), head, [Section("landscapes", "Landscapes", parts)], program
    ).encode()


def landscape_section(record: StudyRecord) -> tuple[Section | None, str]:
    """Return the section on landscapes and sharpness, and the program that its surfaces need.

    Args:
        record: the study.

    Returns:
        The section, `None` before the first finished run; and the program, empty without surfaces.
    """
    if not record.results:
        return None, ""
    table = _sharpness_table(record)
    pictures, program = _kept_pictures(record)
    commands = _commands(record, has_table=bool(table.rows), has_pictures=bool(pictures))
    parts = list(pictures)
    if table.rows:
        parts += [Part("heading", table.title), Part("table", table)]
    if commands:
        parts += [Part("note", "Not measured yet:"), Part("code", "\n".join(commands), "Commands")]
    return Section("landscapes", "Landscapes and sharpness", tuple(parts)), program


def _has_surfaces(found: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether all landscapes of a page can be surfaces that turn."""
    count = sum(len(run["spaces"]) for one in found for run in one["runs"])
    return 0 < count <= MOST_SURFACES


def _parts(found: Mapping[str, Any], prefix: str, *, are_surfaces: bool) -> list[Part]:
    """Return landscapes as parts of a page, with surfaces that turn or flat maps."""
    names = [short(printable(name), LONGEST_NAME) for name in names_of(found["runs"])]
    parts = [Part("note", text) for text in (*notes_of(found), *left_out(found, names))]
    for path in found["paths"]:
        ends = f"{names[path['first']]} to {names[path['second']]}"
        parts.append(Part("note", f"{ends}: barrier {path['barrier']:.3g}"))
    for plane in found.get("seed_planes", ()):
        said = f"{letters_of(plane, names)}; distances in that from A to B"
        parts.append(Part("note", said))
    parts.append(Part("table", _run_table(found, names, f"{prefix}runs")))
    for space in spaces_of(found):
        parts.append(Part("note", f"{TITLES[space]}: x and y in units of {UNITS[space]}"))
    groups = groups_of(found, names)
    pictures = [_picture(group, f"{prefix}{group.key}", are_surfaces) for group in groups]
    parts.append(Part("pictures", pictures))
    numbers = json.dumps(without_folders(found), allow_nan=False)
    return [*parts, Part("fold", (Part("code", numbers, "Numbers"),), "Numbers")]


def _run_table(found: Mapping[str, Any], names: Sequence[str], name: str) -> Table:
    """Return the loss of each run, and how steep it is there."""
    spaces = spaces_of(found)
    columns = [Column("run", "run"), Column("loss", "loss", "number")]
    columns += [Column(one, f"slope, {TITLES[one].lower()}", "number") for one in spaces]
    rows = []
    for label, run in zip(names, found["runs"], strict=True):
        planes = [run["spaces"][space] for space in spaces if space in run["spaces"]]
        slopes = {space: plane["slope"] for space, plane in run["spaces"].items()}
        rows.append({"run": label, "loss": planes[0]["loss"] if planes else None, **slopes})
    title = "Loss of each run, and how steep it is there"
    return Table(name, title, tuple(columns), tuple(rows))


def _picture(group: Group, key: str, are_surfaces: bool) -> Part:
    """Return a figure; a plane may be a surface instead."""
    if group.surface is not None and are_surfaces:
        return Part("surface", draw_surface(key, *group.surface), group.said)
    return Part("picture", as_markup(key, group.panels), group.said)


def _sharpness_table(record: StudyRecord) -> Table:
    """Return the mean sharpness of every variant, task and grid point that was measured."""
    kept = _kept_sharpness(record)
    counts = Counter(key for found in kept.values() for key in found)
    if not counts:
        return Table("sharpness", "Sharpness", (), ())
    key = counts.most_common(1)[0][0]
    own = {name: found[key] for name, found in kept.items() if key in found}
    rows = []
    for entry in record.whole_entries:
        found = [_measures(own[c.identity]) for c in entry.cells if c.identity in own]
        names = dict.fromkeys(name for one in found for name in one)
        means = {name: fmean([one[name] for one in found if name in one]) for name in names}
        if found:
            rows.append({**place_of(record, entry), "num_runs": len(found), **means})
    measures = dict.fromkeys(name for one in own.values() for name in _measures(one))
    columns = (
        *place_columns(record),
        Column("num_runs", "runs", "count"),
        *(Column(name, _heading(name), "number") for name in measures),
    )
    any_run = next(iter(own.values()))
    sample = any_run["sample"]
    said = (
        f"Means over runs, on up to {any_run['num_examples']} rows of {sample['split']}. Rise: how "
        "much the loss rises at most (or under noise) when inputs or rows move by the radius."
    )
    if len(counts) > 1:
        said += f" Of {len(counts)} ways it was measured, the one with the most runs is shown."
    return Table("sharpness", "Sharpness", columns, tuple(rows), said)


def _kept_sharpness(record: StudyRecord) -> dict[str, dict[str, Any]]:
    """Return what was measured of each run, by identity, then by how it was measured."""
    folder = record.path / "analysis" / "sharpness"
    found = {}
    for entry in record.whole_entries:
        for cell in entry.cells:
            path = folder / f"{cell.identity}.json"
            if is_there(path):
                found[cell.identity] = dict(read_json(path))
    return found


def _measures(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of one run by name."""
    values = {"loss": found.get("loss")}
    for space in TITLES:
        for one in (found.get(space) or {}).get("radii", []):
            values |= {f"{space}_{key}_{one['radius']}": one.get(key) for key in ("worst", "noise")}
    curvature = found.get("curvature") or {}
    values |= {f"curvature_{key}": curvature.get(key) for key in ("top", "trace")}
    return {name: value for name, value in values.items() if value is not None}


def _heading(name: str) -> str:
    """Return a number's name in words."""
    words = {"input": "inputs", "prompt": "rows", "worst": "rise"}
    first, *others = [words.get(part, part) for part in name.split("_")]
    if first == "curvature":
        return f"Hessian, {others[0]}"
    return f"{first}, {others[0]} at {others[1]}" if others else first


def _kept_pictures(record: StudyRecord) -> tuple[list[Part], str]:
    """Return the kept landscapes, and the program that their surfaces need."""
    kept = kept_landscapes(record.path)
    are_surfaces, parts = _has_surfaces(kept), []
    labels = {c.identity: entry.label for entry in record.whole_entries for c in entry.cells}
    for number, found in enumerate(_by_variant(one, labels) for one in kept):
        own = _parts(found, f"landscape-{number}-", are_surfaces=are_surfaces)
        parts.append(Part("fold", own, title_of(found), is_open=True))
    return parts, plotly_js() if are_surfaces else ""


def _by_variant(found: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return landscapes whose runs go by what the study calls them, not by their method."""
    runs = [{**run, "method": labels.get(run["identity"], run["method"])} for run in found["runs"]]
    return {**found, "runs": runs}


def _commands(record: StudyRecord, *, has_table: bool, has_pictures: bool) -> list[str]:
    """Return the commands that measure what is missing."""
    study = shlex.quote(str(record.path))
    commands = []
    if not has_pictures:
        runs = " ".join(shlex.quote(str(record.path / "runs" / one)) for one in _examples(record))
        if runs:
            commands.append(f"softprompts landscape {runs}")
    if not has_table:
        commands.append(f"softprompts landscape {study} --sharpness-only --quick")
    return commands


def _examples(record: StudyRecord) -> Sequence[str]:
    """Return the first finished runs of the baseline and of the first other variant."""
    found: dict[str, str] = {}
    for entry in record.whole_entries:
        for cell in entry.cells:
            result = record.results.get(cell.identity)
            if result is not None and result["status"] == "finished":
                found.setdefault(entry.variant, cell.identity)
    base = [found[record.baseline]] if record.baseline in found else []
    others = [identity for variant, identity in found.items() if variant != record.baseline]
    return (*base, *others)[:2]
