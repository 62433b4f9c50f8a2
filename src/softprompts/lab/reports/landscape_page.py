"""Landscapes on pages: runs on a page of their own, a study in its report."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from markupsafe import Markup

from softprompts.lab.reports.figures import as_markup
from softprompts.lab.reports.landscape_figures import (
    LONGEST_NAME,
    Drawing,
    draw_surface,
    drawings_of,
    letters_of,
    surface_program,
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
from softprompts.lab.reports.pages import Head, Part, Section, page, printable, short
from softprompts.lab.reports.study_record import StudyRecord, place_columns
from softprompts.lab.reports.tabular import Column, Table
from softprompts.storage import is_there, read_json

MOST_SURFACES = 8
"""Browsers keep about sixteen surfaces alive; beyond this, planes are flat maps."""


def draw_page(found: Mapping[str, Any]) -> bytes:
    """Return landscapes as a page that needs nothing else."""
    are_surfaces = _has_surfaces([found])
    parts = tuple(_parts(found, "", are_surfaces=are_surfaces))
    title, program = title_of(found), surface_program() if are_surfaces else ""
    section = Section("landscapes", "Landscapes", parts, program)
    return page(title, Head("softprompts landscape", title), [section]).encode()


def landscape_section(record: StudyRecord) -> Section | None:
    """Return the section on landscapes and sharpness; `None` before the first result."""
    if not record.results:
        return None
    table, kept = _sharpness_table(record), kept_landscapes(record.path)
    are_surfaces = _has_surfaces(kept)
    labels = {cell.identity: entry.label for entry, cell in record.runs}
    parts: list[Part] = []
    for number, found in enumerate(kept):
        for run in found["runs"]:  # they go by what the study calls them, not by their method
            if run["identity"] in labels:
                run |= {"method": labels[run["identity"]], "regularizers": ()}
        own = _parts(found, f"landscape-{number}-", are_surfaces=are_surfaces)
        parts.append(Part("fold", own, title_of(found), is_open=True))
    commands = _commands(record, has_table=bool(table.rows), has_pictures=bool(parts))
    if table.rows:
        parts += [Part("heading", table.title), Part("table", table)]
    if commands:
        parts += [Part("note", "Not measured yet:"), Part("code", "\n".join(commands), "Commands")]
    program = surface_program() if are_surfaces else ""
    return Section("landscapes", "Landscapes and sharpness", parts, program)


def _has_surfaces(found: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether all landscapes of a page can be surfaces that turn."""
    count = sum(len(run["spaces"]) for one in found for run in one["runs"])
    return 0 < count <= MOST_SURFACES


def _parts(found: Mapping[str, Any], prefix: str, *, are_surfaces: bool) -> list[Part]:
    """Return landscapes as parts of a page, and their numbers."""
    parts, names = shown_parts(found, prefix, are_surfaces=are_surfaces), _names(found)
    parts.append(Part("table", _run_table(found, names, f"{prefix}runs")))
    numbers = json.dumps(without_folders(found), allow_nan=False)
    return [*parts, Part("fold", (Part("code", numbers, "Numbers"),), "Numbers")]


def _names(found: Mapping[str, Any]) -> list[str]:
    return [short(printable(name), LONGEST_NAME) for name in names_of(found["runs"])]


def shown_parts(found: Mapping[str, Any], prefix: str, *, are_surfaces: bool) -> list[Part]:
    """Return what `measure_landscapes` returned as pictures and what is to be known of them.

    Names of figures begin with `prefix`. Planes are surfaces that turn, or else flat maps.
    """
    names = _names(found)
    parts = [
        Part("text", text) for space in spaces_of(found) for text in _flatness(found, names, space)
    ]
    parts += [Part("note", text) for text in (*notes_of(found), *left_out(found, names))]
    drawings = drawings_of(found, names)
    drawn = {one.key: _picture(one, f"{prefix}{one.key}", are_surfaces) for one in drawings}
    for space in spaces_of(found):
        own = [drawn.pop(one.key) for one in drawings if one.key.startswith(space)]
        title = f"{TITLES[space]}: x and y in units of {UNITS[space]}"
        parts += [Part("heading", title), Part("pictures", own)]
    for path in found["paths"]:
        ends = f"{names[path['first']]} to {names[path['second']]}"
        parts.append(Part("note", f"{ends}: barrier {path['barrier']:.3g}"))
    for plane in found.get("seed_planes", ()):
        said = f"{letters_of(plane, names)}; distances in that from A to B"
        parts.append(Part("note", said))
    return [*parts, *[Part("pictures", [*drawn.values()])] * bool(drawn)]


def _flatness(found: Mapping[str, Any], names: Sequence[str], space: str) -> list[str]:
    """Say which run is the flattest and by how much; nothing of a single run."""
    runs = enumerate(found["runs"])
    planes = [(n, run["spaces"][space]) for n, run in runs if space in run["spaces"]]
    rises = sorted((max(map(max, plane["losses"])) - plane["loss"], n) for n, plane in planes)
    if len(rises) < 2:
        return []
    (least, flat), (most, steep) = rises[0], rises[-1]
    return [
        f"{TITLES[space]}: {names[flat]} is the flatte{'st' if len(rises) > 2 else 'r'}: its loss "
        f"rises by at most {least:.3g} on its plane, that of {names[steep]} by {most:.3g}."
    ]


def _run_table(found: Mapping[str, Any], names: Sequence[str], name: str) -> Table:
    spaces = spaces_of(found)
    columns = [Column("run", "run"), Column("loss", "loss", "number")]
    columns += [Column(one, f"slope, {TITLES[one].lower()}", "number") for one in spaces]
    rows = []
    for label, run in zip(names, found["runs"], strict=True):
        planes = [run["spaces"][space] for space in spaces if space in run["spaces"]]
        slopes = {space: plane["slope"] for space, plane in run["spaces"].items()}
        rows.append({"run": label, "loss": planes[0]["loss"] if planes else None, **slopes})
    title = "Loss of each run, and how steep it is there"
    return Table(name, title, columns, rows)


def _picture(one: Drawing, key: str, are_surfaces: bool) -> Part:
    """Return a figure; a plane may be a surface instead, and is then flat on paper alone."""
    if one.surface is None or not are_surfaces:
        return Part("picture", as_markup(key, [one.panel]), one.said)
    flat = Markup('<div class="flat">{}</div>').format(as_markup(f"{key}-flat", [one.panel]))
    return Part("surface", draw_surface(key, *one.surface) + flat, one.said)


def _sharpness_table(record: StudyRecord) -> Table:
    """Return the mean sharpness of every variant, task and grid point that was measured."""
    folder = record.path / "analysis" / "sharpness"
    paths = {cell.identity: folder / f"{cell.identity}.json" for _, cell in record.runs}
    kept = {name: dict(read_json(path)) for name, path in paths.items() if is_there(path)}
    counts = Counter(key for found in kept.values() for key in found)
    if not counts:
        return Table("sharpness", "Sharpness", (), ())
    key = counts.most_common(1)[0][0]
    any_run = next(found[key] for found in kept.values() if key in found)
    own = {name: _measures(found[key]) for name, found in kept.items() if key in found}
    rows = []
    for entry in record.whole_entries:
        found = [own[c.identity] for c in entry.cells if c.identity in own]
        names = dict.fromkeys(name for one in found for name in one)
        means = {name: fmean([one[name] for one in found if name in one]) for name in names}
        if found:
            rows.append({**entry.place, "num_runs": len(found), **means})
    measures = dict.fromkeys(name for one in own.values() for name in one)
    columns = (
        *place_columns(record),
        Column("num_runs", "runs", "count"),
        *(Column(name, _heading(name), "number") for name in measures),
    )
    said = (
        f"Means over runs, on up to {any_run['num_examples']} rows of {any_run['sample']['split']}."
        " Rise: how much the loss rises at most (or under noise) when inputs or rows move by the "
        "radius."
    )
    if len(counts) > 1:
        said += f" Of {len(counts)} ways it was measured, the one with the most runs is shown."
    return Table("sharpness", "Sharpness", columns, rows, said)


def _measures(found: Mapping[str, Any]) -> dict[str, float]:
    values = {"loss": found.get("loss")}
    for space in TITLES:
        for one in (found.get(space) or {}).get("radii", []):
            values |= {f"{space}_{key}_{one['radius']}": one.get(key) for key in ("worst", "noise")}
    curvature = found.get("curvature") or {}
    values |= {f"curvature_{key}": curvature.get(key) for key in ("top", "trace")}
    return {name: value for name, value in values.items() if value is not None}


def _heading(name: str) -> str:
    words = {"input": "inputs", "prompt": "rows", "worst": "rise"}
    first, *others = [words.get(part, part) for part in name.split("_")]
    if first == "curvature":
        return f"Hessian, {others[0]}"
    return f"{first}, {others[0]} at {others[1]}" if others else first


def _commands(record: StudyRecord, *, has_table: bool, has_pictures: bool) -> list[str]:
    """Return commands that measure the baseline and the first other variant, and all runs."""
    firsts: dict[str, str] = {}
    for entry, cell in record.runs:
        if record.results.get(cell.identity, {}).get("status") == "finished":
            firsts.setdefault(entry.variant, shlex.quote(str(record.folder(cell))))
    commands = []
    if firsts and not has_pictures:
        names = sorted(firsts, key=lambda name: name != record.baseline)[:2]
        commands.append(f"softprompts landscape {' '.join(firsts[name] for name in names)}")
    if not has_table:
        study = shlex.quote(str(record.path))
        commands.append(f"softprompts landscape {study} --sharpness-only --quick")
    return commands
