"""The landscapes of several runs as one page: surfaces that turn, under one scale.

The page holds all that it needs, plotly included, and opens without a network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.lab.reports.figures import inline, stack, style
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
    left_out,
    names_of,
    notes_of,
    spaces_of,
    title_of,
    without_folders,
)
from softprompts.lab.reports.pages import Head, Part, Section, page
from softprompts.lab.reports.spelling import printable, short
from softprompts.lab.reports.tabular import Column, Table

MOST_SURFACES = 8
"""Browsers keep about sixteen surfaces alive; beyond this, planes are flat maps."""


def draw_page(found: Mapping[str, Any]) -> bytes:
    """Return landscapes as a page that needs nothing else.

    Args:
        found: what `measure_landscapes` returned.

    Returns:
        The page, as UTF-8.
    """
    are_surfaces = has_surfaces([found])
    section = Section(
        "landscapes", "Landscapes", tuple(landscape_parts(found, are_surfaces=are_surfaces))
    )
    head = Head("softprompts landscape", title_of(found))
    program = plotly_js() if are_surfaces else ""
    return page(title_of(found), head, [section], program).encode()


def has_surfaces(found: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether all landscapes of a page can be surfaces that turn."""
    count = sum(len(run["spaces"]) for one in found for run in one["runs"])
    return 0 < count <= MOST_SURFACES


def landscape_parts(
    found: Mapping[str, Any], prefix: str = "", *, are_surfaces: bool = True
) -> list[Part]:
    """Return landscapes as parts of a page, without title.

    Args:
        found: what `measure_landscapes` returned.
        prefix: what the names of figures begin with; another for each landscape of a page.
        are_surfaces: whether planes are surfaces that turn, or flat maps.
    """
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
    with style():
        return Part("picture", inline(stack(group.panels), key), group.said)
