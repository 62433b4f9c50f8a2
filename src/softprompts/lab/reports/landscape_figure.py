"""The landscapes of several runs as one picture: planes under one colour scale, lines, paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from softprompts.lab.reports.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    ROUND_STEPS,
    Panel,
    Spelling,
    add_colour_bar,
    add_legend,
    drawable,
    printable,
    save,
    short,
    stack,
    style,
)
from softprompts.lab.reports.landscape import (
    TITLES,
    UNITS,
    Scale,
    left_out,
    names_of,
    notes_of,
    scale_of,
    spaces_of,
    title_of,
)

_COLOURS = (BLUE, ORANGE, GREEN, GREY)
_LINES = ("-", "--", ":")
_LONGEST = 40
_WIDEST = 72


def draw_landscapes(found: Mapping[str, Any], format: str = "svg") -> bytes:
    """Draw landscapes; the same ones give the same bytes.

    Args:
        found: what `measure_landscapes` returned.
        format: `svg` or `png`.

    Returns:
        The content of the picture's file.
    """
    spell = drawable if format == "png" else printable
    with style():
        return save(build_landscapes(found, spell), format)


def build_landscapes(found: Mapping[str, Any], spell: Spelling = printable) -> Figure:
    """Return the figure itself; call it and draw it inside `figures.style`.

    Args:
        found: what `measure_landscapes` returned.
        spell: turns text from data into text that the format can show.
    """
    names = [short(spell(name), _LONGEST) for name in names_of(found["runs"])]
    panels: list[Panel] = []
    for space in spaces_of(found):
        scale = scale_of(found, space)
        panels += [
            Panel(1.9, partial(_draw_plane, run["spaces"][space], (name, scale), space))
            for name, run in zip(names, found["runs"], strict=True)
            if space in run["spaces"]
        ]
        panels += [_line_panel(found["runs"], names, space, which) for which in _AXES]
    if found["paths"]:
        panels.append(_path_panel(found["paths"], names))
    panels += [Panel(2.2, partial(_draw_seeds, plane, names)) for plane in found["seed_planes"]]
    notes = [*notes_of(found), *left_out(found, names)]
    return stack(
        panels, short(spell(title_of(found)), _WIDEST), [short(spell(n), 90) for n in notes]
    )


_AXES = {"first": "x", "second": "y"}


def _draw_plane(
    plane: Mapping[str, Any], given: tuple[str, Scale], space: str, axes: Axes, bar: Axes
) -> None:
    """Draw the loss over one plane, the run in its middle."""
    name, scale = given
    radius = plane["radius"]
    half = radius / (len(plane["axis"]) - 1)
    edge = radius + half
    image = axes.imshow(
        np.array(plane["losses"]),
        extent=(-edge, edge, -edge, edge),
        origin="lower",
        vmin=scale.low,
        vmax=scale.high,
        aspect="auto",
    )
    levels = np.linspace(scale.low, scale.high, 9)[1:-1]
    if np.ptp(plane["losses"]) > 0 and scale.high > scale.low:
        axes.contour(
            plane["axis"], plane["axis"], plane["losses"], levels, colors="white", linewidths=0.6
        )
    axes.plot([0], [0], marker="+", color="white", markersize=8)
    axes.set_title(f"{TITLES[space]}: {name}")
    axes.set_xlabel(f"x ({UNITS[space]})")
    axes.set_ylabel("y")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    add_colour_bar(image, bar, "loss")


def _draw_seeds(plane: Mapping[str, Any], names: Sequence[str], axes: Axes, bar: Axes) -> None:
    """Draw the loss over the plane through three seeds, each marked by its letter."""
    x, y, losses = plane["x_axis"], plane["y_axis"], np.array(plane["losses"])
    image = axes.imshow(
        losses,
        extent=(*_edges(x), *_edges(y)),
        origin="lower",
        aspect="auto",
    )
    if np.ptp(losses) > 0:
        levels = np.linspace(losses.min(), losses.max(), 9)[1:-1]
        axes.contour(x, y, losses, levels, colors="white", linewidths=0.6)
    for letter, (across, up) in zip("ABC", plane["marks"], strict=True):
        axes.plot([across], [up], marker="o", color="white", markersize=3)
        axes.annotate(f" {letter}", (across, up), color="white")
    shown = [short(names[number], 18) for number in plane["runs"]]
    axes.set_title(f"Plane through {', '.join(shown)}", fontsize=8)
    axes.set_xlabel("distance, in that from A to B")
    axes.set_ylabel("likewise, across")
    add_colour_bar(image, bar, "loss")


def _edges(places: Sequence[float]) -> tuple[float, float]:
    """Return where the first and the last cell end."""
    half = (places[1] - places[0]) / 2
    return places[0] - half, places[-1] + half


def _line_panel(
    runs: Sequence[Mapping[str, Any]], names: Sequence[str], space: str, which: str
) -> Panel:
    """Return a panel with the loss of every run along one axis."""
    present = [
        (number, name, run["spaces"][space])
        for number, (name, run) in enumerate(zip(names, runs, strict=True))
        if space in run["spaces"]
    ]

    def draw(axes: Axes, bar: Axes) -> None:
        lines = [
            axes.plot(plane["line_axis"], plane["lines"][which], label=name, **_look(number))[0]
            for number, name, plane in present
        ]
        axes.set_xlabel(f"{_AXES[which]} ({UNITS[space]})")
        axes.set_ylabel("loss")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND_STEPS))
        add_legend(axes, lines, f"{TITLES[space]} along {_AXES[which]}", 1)

    return Panel(1.3, draw, len(present))


def _path_panel(paths: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Panel:
    """Return a panel with the loss between runs."""

    def draw(axes: Axes, bar: Axes) -> None:
        lines = []
        for number, path in enumerate(paths):
            ends = f"{names[path['first']]} to {names[path['second']]}"
            label = f"{short(ends, 58)}: barrier {path['barrier']:.3g}"
            lines += axes.plot(path["shares"], path["losses"], label=label, **_look(number))
        axes.set_xlabel("share of the second run")
        axes.set_ylabel("loss")
        add_legend(axes, lines, "Straight path between runs", 1)

    return Panel(1.3, draw, len(paths))


def _look(number: int) -> dict[str, Any]:
    """Return colour and line of a run."""
    lap, place = divmod(number, len(_COLOURS))
    return {"color": _COLOURS[place], "linestyle": _LINES[lap % len(_LINES)], "linewidth": 1.4}
