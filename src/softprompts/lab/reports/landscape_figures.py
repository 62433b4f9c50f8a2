"""The figures of landscapes: planes under one scale of colours, lines, paths, and surfaces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

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
    as_file,
    stack,
)
from softprompts.lab.reports.landscapes import (
    TITLES,
    UNITS,
    left_out,
    names_of,
    notes_of,
    scale_of,
    spaces_of,
    title_of,
)
from softprompts.lab.reports.pages import printable, short

LONGEST_NAME = 40
"""Most letters of a run's name."""

_AXES = {"first": "x", "second": "y"}
_COLOURS = (BLUE, ORANGE, GREEN, GREY)
_LINES = ("-", "--", ":")
_WIDEST = 72
_SURFACE = {
    "showlegend": False,
    "paper_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": "#808080"},  # can be read on light and on dark
    "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
}

_DRAW_ALL = """addEventListener("DOMContentLoaded", () => {
  for (const one of document.querySelectorAll("[data-surface]"))
    Plotly.newPlot(one, JSON.parse(one.dataset.surface));
});"""

Ends = tuple[float, float]


@final
@dataclass(frozen=True)
class Drawing:
    """A panel that is one figure of a page.

    Attributes:
        said: what it shows, in words.
        surface: a plane that can be a surface instead, the scale of its losses, and whether a bar
            explains its colours.
    """

    key: str
    said: str
    panel: Panel
    surface: tuple[Mapping[str, Any], Ends, bool] | None = None


def draw_landscapes(found: Mapping[str, Any], format: str = "svg") -> bytes:
    """Draw landscapes as `svg` or `png`; the same ones give the same bytes."""
    return as_file(partial(build_landscapes, found), format)


def build_landscapes(found: Mapping[str, Any], spell: Spelling = printable) -> Figure:
    """Return the figure itself; call it and draw it inside `figures.style`."""
    names = [short(spell(name), LONGEST_NAME) for name in names_of(found["runs"])]
    notes = [short(spell(note), 90) for note in (*notes_of(found), *left_out(found, names))]
    panels = [one.panel for one in drawings_of(found, names)]
    return stack(panels, short(spell(title_of(found)), _WIDEST), notes)


def drawings_of(found: Mapping[str, Any], names: Sequence[str]) -> list[Drawing]:
    """Return everything that there is to draw."""
    drawings: list[Drawing] = []
    for space in spaces_of(found):
        scale, moved = scale_of(found, space), f"{TITLES[space].lower()} moved"
        planes = [
            (number, name, run["spaces"][space])
            for number, (name, run) in enumerate(zip(names, found["runs"], strict=True))
            if space in run["spaces"]
        ]
        for place, (_, name, plane) in enumerate(planes):
            losses = np.array(plane["losses"])
            said = (
                f"Loss of {name} over a plane, {moved}: {plane['loss']:.3g} at the run, "
                f"{losses.min():.3g} to {losses.max():.3g} around it."
            )
            panel = Panel(1.9, partial(_draw_plane, plane, name, space, scale, not place))
            drawings.append(Drawing(f"{space}-{place}", said, panel, (plane, scale, not place)))
        own = "; ".join(name for _, name, _ in planes)
        for which, axis in _AXES.items():
            said, title = f"Loss along {axis}, {moved}, of {own}.", f"{TITLES[space]} along {axis}"
            lines = [(n, name, of["line_axis"], of["lines"][which]) for n, name, of in planes]
            panel = _line_panel(lines, title, f"{axis} ({UNITS[space]})", has_few_ticks=True)
            drawings.append(Drawing(f"{space}-{axis}", said, panel))
    ends = [f"{names[path['first']]} to {names[path['second']]}" for path in found["paths"]]
    if ends:
        said = f"Loss along the straight path from {'; from '.join(ends)}."
        lines = [
            (n, f"{short(ends[n], 58)}: barrier {of['barrier']:.3g}", of["shares"], of["losses"])
            for n, of in enumerate(found["paths"])
        ]
        panel = _line_panel(lines, "Straight path between runs", "share of the second run")
        drawings.append(Drawing("paths", said, panel))
    for number, plane in enumerate(found.get("seed_planes", ())):
        said = f"Loss on the plane through {letters_of(plane, names)}."
        panel = Panel(2.2, partial(_draw_seeds, plane, names))
        drawings.append(Drawing(f"seeds-{number}", said, panel))
    return drawings


def letters_of(plane: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return which runs the letters on a plane through seeds stand for."""
    own = zip("ABC", (names[place] for place in plane["runs"]), strict=True)
    return ", ".join(f"{letter}: {name}" for letter, name in own)


def draw_surface(key: str, plane: Mapping[str, Any], scale: Ends, has_bar: bool) -> Markup:
    """Return a surface of the loss that turns, with the run marked; needs `surface_program`.

    The scale is that of all planes, so one bar that explains the colours is enough for all.
    """
    surface = {
        "type": "surface",
        "x": plane["axis"],
        "y": plane["axis"],
        "z": plane["losses"],
        "cmin": scale[0],
        "cmax": scale[1],
        "colorscale": "Cividis",
        "showscale": has_bar,
        "colorbar": {"thickness": 8, "len": 0.6, "title": {"text": "loss"}},
        "hovertemplate": "x %{x:.3g}<br>y %{y:.3g}<br>loss %{z:.4g}<extra></extra>",
    }
    marker = {"size": 4, "color": ORANGE}
    own = {"type": "scatter3d", "x": [0], "y": [0], "z": [plane["loss"]], "marker": marker}
    ends = {"range": [-plane["radius"], plane["radius"]], "nticks": 5}
    scene = {
        "xaxis": {**ends, "title": {"text": "x"}},
        "yaxis": {**ends, "title": {"text": "y"}},
        "zaxis": {"range": list(scale), "nticks": 5, "title": {"text": ""}},
        "camera": {
            "eye": {"x": 1.42, "y": -1.42, "z": 0.9},
            "center": {"x": 0, "y": 0, "z": -0.17},
        },
        "aspectmode": "cube",
    }
    config = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    drawn = {"data": [surface, own], "layout": {**_SURFACE, "scene": scene}, "config": config}
    held = json.dumps(drawn, allow_nan=False)
    return Markup('<div class="surface" id="{}" data-surface="{}"></div>').format(key, held)


def surface_program() -> str:
    """Return the program that turns the surfaces of a page, about 5 megabytes."""
    from plotly.offline import get_plotlyjs

    return f"{get_plotlyjs()}\n{_DRAW_ALL}"


def _draw_plane(
    plane: Mapping[str, Any], name: str, space: str, scale: Ends, has_bar: bool, axes: Axes
) -> None:
    _draw_map(axes, plane["axis"], plane["axis"], np.array(plane["losses"]), scale, has_bar)
    axes.plot([0], [0], marker="+", color="white", markersize=8)
    axes.set(title=f"{TITLES[space]}: {name}", xlabel=f"x ({UNITS[space]})", ylabel="y")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))


def _draw_seeds(plane: Mapping[str, Any], names: Sequence[str], axes: Axes) -> None:
    losses = np.array(plane["losses"])
    ends = (float(losses.min()), float(losses.max()))
    _draw_map(axes, plane["x_axis"], plane["y_axis"], losses, ends)
    for letter, (across, up) in zip("ABC", plane["marks"], strict=True):
        axes.plot([across], [up], marker="o", color="white", markersize=3)
        axes.annotate(f" {letter}", (across, up), color="white")
    shown = [short(names[number], 18) for number in plane["runs"]]
    axes.set_title(f"Plane through {', '.join(shown)}", fontsize=8)
    axes.set(xlabel="distance, in that from A to B", ylabel="likewise, across")


def _draw_map(
    axes: Axes, x: Any, y: Any, losses: NDArray[Any], scale: Ends, has_bar: bool = True
) -> None:
    ends, (low, high) = (*_edges(x), *_edges(y)), scale
    image = axes.imshow(losses, extent=ends, aspect="auto", origin="lower", vmin=low, vmax=high)
    if np.ptp(losses) > 0 and high > low:
        levels = np.linspace(*scale, 9)[1:-1]
        axes.contour(x, y, losses, levels, colors="white", linewidths=0.6)
    if has_bar:
        add_colour_bar(image, "loss")


def _edges(places: Sequence[float]) -> Ends:
    """Return where the first and the last cell end."""
    half = (places[-1] - places[0]) / (len(places) - 1) / 2
    return places[0] - half, places[-1] + half


def _line_panel(
    lines: Sequence[tuple[int, str, Any, Any]], title: str, along: str, has_few_ticks: bool = False
) -> Panel:
    """Return a panel of lines, each with the number of its look, its label, places and losses."""

    def draw(axes: Axes) -> None:
        drawn = []
        for number, label, places, losses in lines:
            lap, place = divmod(number, len(_COLOURS))
            colour, dashes = _COLOURS[place], _LINES[lap % len(_LINES)]
            drawn += axes.plot(places, losses, label=label, color=colour, ls=dashes, lw=1.4)
        axes.set(xlabel=along, ylabel="loss")
        if has_few_ticks:
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
            axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND_STEPS))
        add_legend(axes, drawn, title, 1)

    return Panel(1.3, draw, len(lines))
