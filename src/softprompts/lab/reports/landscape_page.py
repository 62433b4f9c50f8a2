"""The landscapes of several runs as one page: surfaces that turn, under one scale.

The page holds all that it needs, plotly included, and opens without a network.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.lab.reports.figures import printable, short
from softprompts.lab.reports.landscape import (
    TITLES,
    UNITS,
    left_out,
    names_of,
    notes_of,
    scale_of,
    spaces_of,
    title_of,
)
from softprompts.lab.reports.markup import Html, block, tag
from softprompts.lab.reports.page import page
from softprompts.lab.reports.report_style import REPORT_STYLE

MOST_SURFACES = 8
"""Browsers keep about sixteen surfaces alive; beyond this, planes are flat maps."""

COLOURS = ("#2a7fba", "#d9731a", "#1f9e77", "#8c6bb1", "#b5485d", "#7a7a7a")
DASHES = ("solid", "dash", "dot")
_LONGEST = 48
_BAR = {"thickness": 8, "title": {"text": "loss"}}

_SCRIPT = """
const panels = JSON.parse(document.getElementById("panels").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const ink = dark.matches ? "#ececee" : "#1d1d1f";
  const grid = dark.matches ? "#4a4a50" : "#d5d5da";
  for (const [id, panel] of Object.entries(panels)) {
    const layout = structuredClone(panel.layout);
    Object.assign(layout, {paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {color: ink, size: 12}, autosize: true});
    for (const part of [layout, layout.scene || {}])
      for (const name of ["xaxis", "yaxis", "zaxis"])
        if (part[name]) Object.assign(part[name], {gridcolor: grid, zerolinecolor: grid,
          linecolor: grid, color: ink});
    Plotly.react(id, panel.data, layout, {responsive: true, displaylogo: false,
      displayModeBar: false});
  }
}
draw();
dark.addEventListener("change", draw);
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) {
    one.open = true;
    addEventListener("afterprint", () => { one.open = false; }, {once: true});
  }
});
"""


def draw_page(found: Mapping[str, Any]) -> bytes:
    """Return landscapes as a page that needs nothing else.

    Args:
        found: what `measure_landscapes` returned.

    Returns:
        The page, as UTF-8.
    """
    count = sum(len(run["spaces"]) for run in found["runs"])
    body, panels = landscape_parts(found, are_surfaces=count <= MOST_SURFACES)
    title = printable(title_of(found))
    head = tag("header", tag("p", "softprompts landscape", class_="over"), tag("h1", title))
    return page(title, [head, *body], REPORT_STYLE, scripts(), held(panels)).encode()


def landscape_parts(
    found: Mapping[str, Any], prefix: str = "", *, are_surfaces: bool = True
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return landscapes as parts of a page, without title.

    Args:
        found: what `measure_landscapes` returned.
        prefix: what the names of panels begin with; another for each landscape of a page.
        are_surfaces: whether planes are surfaces that turn, or flat maps.

    Returns:
        The markup, and the panels by the name of their place in it.
    """
    names = [short(printable(name), _LONGEST) for name in names_of(found["runs"])]
    panels: dict[str, dict[str, Any]] = {}
    body = [_head(found, names)]
    for space in spaces_of(found):
        body.append(_space(found, names, (space, prefix), (panels, are_surfaces)))
    if found["paths"]:
        ends = [f"{names[path['first']]} to {names[path['second']]}" for path in found["paths"]]
        lines = [
            (end, path["shares"], path["losses"])
            for end, path in zip(ends, found["paths"], strict=True)
        ]
        panels[f"{prefix}paths"] = _lines(lines, "share of the second run")
        said = f"Loss along the straight path from {'; from '.join(ends)}."
        body.append(f"<h3>Straight path between runs</h3>\n{_place(f'{prefix}paths', said)}")
    for number, plane in enumerate(found.get("seed_planes", ())):
        panels[f"{prefix}seeds-{number}"] = _seeds(plane)
        letters = zip("ABC", (names[place] for place in plane["runs"]), strict=True)
        said = ", ".join(f"{letter}: {name}" for letter, name in letters)
        place = _place(f"{prefix}seeds-{number}", f"Loss on the plane through {said}.")
        text = tag("p", f"{said}; distances in that from A to B")
        body.append(f"<h3>Plane through three seeds</h3>\n{text}\n{place}")
    bare = [{k: v for k, v in run.items() if k != "folder"} for run in found["runs"]]
    numbers = block(json.dumps({**found, "runs": bare}, allow_nan=False), "Numbers")
    body.append(tag("details", tag("summary", "Numbers"), numbers))
    return body, panels


def _place(key: str, said: str, look: str = "panel wide") -> Html:
    """Return where a picture is drawn; it is one picture, which a sentence stands for."""
    return tag("div", class_=look, id=key, role="img", aria_label=said)


def scripts() -> list[str]:
    """Return the programs that draw panels: the library, and what calls it."""
    from plotly.offline import get_plotlyjs

    return [get_plotlyjs(), _SCRIPT]


def held(panels: Mapping[str, Any]) -> str:
    """Return what the script draws, as an element.

    Args:
        panels: panels by the name of their place.
    """
    missing = "<noscript><p>The pictures need JavaScript; the numbers are above.</p></noscript>\n"
    data = _embedded(panels)
    return f'{missing}<script type="application/json" id="panels">{data}</script>\n'


def _embedded(value: Any) -> str:
    """Return JSON that no tag can leave."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(found: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return title, notes, and a table of the runs."""
    spaces = spaces_of(found)
    heads = ["run", "loss", *(f"slope, {TITLES[space].lower()}" for space in spaces)]
    rows = [heads]
    for name, run in zip(names, found["runs"], strict=True):
        planes = [run["spaces"].get(space) for space in spaces]
        losses = [plane["loss"] for plane in planes if plane]
        slopes = [_number(plane["slope"] if plane else None) for plane in planes]
        rows.append([name, _number(losses[0] if losses else None), *slopes])
    notes = [*notes_of(found), *left_out(found, names)]
    for path in found["paths"]:
        ends = f"{names[path['first']]} to {names[path['second']]}"
        notes.append(f"{ends}: barrier {path['barrier']:.3g}")
    said = [tag("p", printable(note), class_="note") for note in notes]
    return "\n".join([*said, _table("Loss of each run, and how steep it is there", rows)])


def _table(title: str, rows: Sequence[Sequence[str]]) -> Html:
    """Return a table, its first row of headings, in a box that scrolls where it is too wide."""
    kinds = [("th", "col"), *[("td", None)] * (len(rows) - 1)]
    heads, *others = (
        [tag(kind, one, class_=None if at else "text", scope=scope) for at, one in enumerate(row)]
        for row, (kind, scope) in zip(rows, kinds, strict=True)
    )
    drawn = tag(
        "table",
        tag("caption", title),
        tag("thead", tag("tr", *heads)),
        tag("tbody", (tag("tr", *cells) for cells in others)),
    )
    return tag("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=title)


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}"


def _space(
    found: Mapping[str, Any],
    names: Sequence[str],
    where: tuple[str, str],
    given: tuple[dict[str, dict[str, Any]], bool],
) -> str:
    """Add the panels of a space, and return where they stand."""
    (space, prefix), (panels, are_surfaces) = where, given
    scale = scale_of(found, space)
    places = []
    present = [
        (name, run["spaces"][space])
        for name, run in zip(names, found["runs"], strict=True)
        if space in run["spaces"]
    ]
    for number, (name, plane) in enumerate(present):
        key = f"{prefix}{space}-{number}"
        limits = (scale.low, scale.high)
        panels[key] = (_surface if are_surfaces else _map)(plane, name, limits)
        losses = [loss for line in plane["losses"] for loss in line]
        said = (
            f"Loss of {name} over a plane, {TITLES[space].lower()} moved: {plane['loss']:.3g} at "
            f"the run, {min(losses):.3g} to {max(losses):.3g} around it."
        )
        places.append(_place(key, said, "panel"))
    for which, letter in (("first", "x"), ("second", "y")):
        key = f"{prefix}{space}-{which}"
        lines = [(name, plane["line_axis"], plane["lines"][which]) for name, plane in present]
        panels[key] = _lines(lines, f"{letter} ({UNITS[space]})")
        said = f"Loss along {letter}, {TITLES[space].lower()} moved, of {'; '.join(names)}."
        places.append(_place(key, said))
    return "\n".join(
        [
            f"<h3>{TITLES[space]}</h3>",
            f"<p class='note'>x and y in units of {UNITS[space]}</p>",
            "<div class='panels'>",
            *places,
            "</div>",
        ]
    )


def _surface(plane: Mapping[str, Any], name: str, limits: tuple[float, float]) -> dict[str, Any]:
    """Return a surface of the loss, with the run marked."""
    low, high = limits
    axis = {"range": [-plane["radius"], plane["radius"]], "nticks": 5}
    return {
        "data": [
            {**_values(plane, limits), "type": "surface", "colorbar": {**_BAR, "len": 0.6}},
            {
                "type": "scatter3d",
                "mode": "markers",
                "x": [0],
                "y": [0],
                "z": [plane["loss"]],
                "marker": {"size": 4, "color": "#d9731a"},
                "name": "the run",
                "showlegend": False,
            },
        ],
        "layout": {
            **_titled(name),
            "margin": {"l": 0, "r": 0, "t": 36, "b": 0},
            "scene": {
                "xaxis": {**axis, "title": {"text": "x"}},
                "yaxis": {**axis, "title": {"text": "y"}},
                "zaxis": {"range": [low, high], "nticks": 5, "title": {"text": ""}},
                "camera": {
                    "eye": {"x": 1.75, "y": -1.75, "z": 1.1},
                    "center": {"x": 0, "y": 0, "z": -0.15},
                },
                "aspectmode": "cube",
            },
        },
    }


def _map(plane: Mapping[str, Any], name: str, limits: tuple[float, float]) -> dict[str, Any]:
    """Return a flat map of the loss."""
    return {
        "data": [
            {
                **{k: v for k, v in _values(plane, limits).items() if k not in ("cmin", "cmax")},
                "zmin": limits[0],
                "zmax": limits[1],
                "type": "contour",
                "colorbar": _BAR,
            }
        ],
        "layout": {
            **_titled(name),
            "margin": {"l": 44, "r": 8, "t": 36, "b": 40},
            "xaxis": {"title": {"text": "x"}},
            "yaxis": {"title": {"text": "y"}},
        },
    }


def _seeds(plane: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat map of the loss over the plane through three seeds, which are marked."""
    losses = [loss for line in plane["losses"] for loss in line]
    drawn = {**plane, "axis": plane["x_axis"]}
    panel = _map(drawn, "", (min(losses), max(losses)))
    panel["data"][0]["y"] = plane["y_axis"]
    panel["data"].append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [x for x, _ in plane["marks"]],
            "y": [y for _, y in plane["marks"]],
            "text": list("ABC"),
            "textposition": "top center",
            "textfont": {"color": "#ffffff"},
            "marker": {"size": 7, "color": "#d9731a"},
            "showlegend": False,
        }
    )
    return panel


def _values(plane: Mapping[str, Any], limits: tuple[float, float]) -> dict[str, Any]:
    """Return what surfaces and maps share."""
    return {
        "x": plane["axis"],
        "y": plane["axis"],
        "z": plane["losses"],
        "cmin": limits[0],
        "cmax": limits[1],
        "colorscale": "Cividis",
        "hovertemplate": "x %{x:.3g}<br>y %{y:.3g}<br>loss %{z:.4g}<extra></extra>",
    }


def _lines(
    lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], title: str
) -> dict[str, Any]:
    """Return the losses of several runs along one axis."""
    data = []
    for number, (name, places, losses) in enumerate(lines):
        lap, place = divmod(number, len(COLOURS))
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": list(places),
                "y": list(losses),
                "name": html.escape(name),
                "line": {"color": COLOURS[place], "dash": DASHES[lap % len(DASHES)], "width": 2},
            }
        )
    return {
        "data": data,
        "layout": {
            "margin": {"l": 50, "r": 8, "t": 8, "b": 40},
            "xaxis": {"title": {"text": title}},
            "yaxis": {"title": {"text": "loss"}},
            "showlegend": True,
            "legend": {"orientation": "h", "y": -0.25, "yanchor": "top"},
        },
    }


def _titled(name: str) -> dict[str, Any]:
    return {"title": {"text": html.escape(name), "font": {"size": 13}, "x": 0.02}}
