"""The landscapes of several runs as one page: surfaces that turn, under one scale.

The page holds all that it needs, plotly included, and opens without a network.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.reports.figures import MAKER, printable, short
from softprompts.reports.landscape import (
    TITLES,
    UNITS,
    left_out,
    names_of,
    notes_of,
    scale_of,
    spaces_of,
    title_of,
)

MOST_SURFACES = 8
"""Browsers keep about sixteen surfaces alive; beyond this, planes are flat maps."""

COLOURS = ("#2a7fba", "#d9731a", "#1f9e77", "#8c6bb1", "#b5485d", "#7a7a7a")
DASHES = ("solid", "dash", "dot")
_LONGEST = 48

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #ffffff; --faint: #5c5c61; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececee; --paper: #161618; --faint: #a5a5ab; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 0.75rem; font-family: system-ui, sans-serif;
  color: var(--ink); background: var(--paper); line-height: 1.4; }
h1 { font-size: 1.25rem; } h2 { font-size: 1.05rem; margin: 1.2rem 0 0.3rem; }
h1, p, li { overflow-wrap: anywhere; }
p, li { color: var(--faint); margin: 0.2rem 0; font-size: 0.95rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
  gap: 0.5rem; }
.panel { min-width: 0; height: 22rem; } .wide { height: 20rem; }
table { border-collapse: collapse; font-size: 0.9rem; } .scroll { overflow-x: auto; }
th, td { text-align: right; padding: 0.2rem 0.6rem; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
pre { overflow-x: auto; font-size: 0.75rem; max-height: 24rem; }
"""

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
"""


def draw_page(found: Mapping[str, Any]) -> bytes:
    """Return landscapes as a page that needs nothing else.

    Args:
        found: what `measure_landscapes` returned.

    Returns:
        The page, as UTF-8.
    """
    from plotly.offline import get_plotlyjs

    names = [short(printable(name), _LONGEST) for name in names_of(found["runs"])]
    panels: dict[str, dict[str, Any]] = {}
    body = [_head(found, names)]
    spaces = spaces_of(found)
    count = sum(len(run["spaces"]) for run in found["runs"])
    for space in spaces:
        body.append(_space(found, names, space, (panels, count <= MOST_SURFACES)))
    if found["paths"]:
        panels["paths"] = _lines(
            [
                (
                    f"{names[path['first']]} to {names[path['second']]}",
                    path["shares"],
                    path["losses"],
                )
                for path in found["paths"]
            ],
            "share of the second run",
        )
        body.append(
            "<h2>Straight path between runs</h2>\n<div class='panel wide' id='paths'></div>"
        )
    for number, plane in enumerate(found["seed_planes"]):
        panels[f"seeds-{number}"] = _seeds(plane)
        letters = zip("ABC", (names[place] for place in plane["runs"]), strict=True)
        said = ", ".join(f"{letter}: {html.escape(name)}" for letter, name in letters)
        body.append(
            f"<h2>Plane through three seeds</h2>\n<p>{said}; distances in that from A to B</p>\n"
            f"<div class='panel wide' id='seeds-{number}'></div>"
        )
    bare = [{k: v for k, v in run.items() if k != "folder"} for run in found["runs"]]
    numbers = html.escape(json.dumps({**found, "runs": bare}, allow_nan=False))
    body.append(f"<details><summary>Numbers</summary><pre>{numbers}</pre></details>")
    text = _PAGE.format(
        maker=MAKER,
        title=html.escape(printable(title_of(found))),
        style=_STYLE,
        body="\n".join(body),
        panels=_embedded(panels),
        plotly=get_plotlyjs(),
        script=_SCRIPT,
    )
    return text.encode()


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="{maker}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<noscript><p>The pictures need JavaScript; the numbers are above.</p></noscript>
<script type="application/json" id="panels">{panels}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def _embedded(value: Any) -> str:
    """Return JSON that no tag can leave."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(found: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return title, notes, and a table of the runs."""
    spaces = spaces_of(found)
    heads = ["run", "loss", *(f"slope, {TITLES[space].lower()}" for space in spaces)]
    rows = []
    for name, run in zip(names, found["runs"], strict=True):
        planes = [run["spaces"].get(space) for space in spaces]
        losses = [plane["loss"] for plane in planes if plane]
        cells = [name, _number(losses[0] if losses else None)]
        cells += [_number(plane["slope"] if plane else None) for plane in planes]
        rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    notes = [*notes_of(found), *left_out(found, names)]
    for path in found["paths"]:
        ends = f"{names[path['first']]} to {names[path['second']]}"
        notes.append(f"{ends}: barrier {path['barrier']:.3g}")
    return "\n".join(
        [
            f"<h1>{html.escape(printable(title_of(found)))}</h1>",
            *(f"<p>{html.escape(printable(note))}</p>" for note in notes),
            "<div class='scroll'><table><tr>",
            "".join(f"<th>{head}</th>" for head in heads),
            "</tr>",
            *(f"<tr>{row}</tr>" for row in rows),
            "</table></div>",
        ]
    )


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}"


def _space(
    found: Mapping[str, Any],
    names: Sequence[str],
    space: str,
    given: tuple[dict[str, dict[str, Any]], bool],
) -> str:
    """Add the panels of a space, and return where they stand."""
    panels, are_surfaces = given
    scale = scale_of(found, space)
    places = []
    present = [
        (name, run["spaces"][space])
        for name, run in zip(names, found["runs"], strict=True)
        if space in run["spaces"]
    ]
    for number, (name, plane) in enumerate(present):
        key = f"{space}-{number}"
        limits = (scale.low, scale.high)
        panels[key] = (_surface if are_surfaces else _map)(plane, name, limits)
        places.append(f"<div class='panel' id='{key}'></div>")
    for which, letter in (("first", "x"), ("second", "y")):
        key = f"{space}-{which}"
        lines = [(name, plane["line_axis"], plane["lines"][which]) for name, plane in present]
        panels[key] = _lines(lines, f"{letter} ({UNITS[space]})")
        places.append(f"<div class='panel wide' id='{key}'></div>")
    return "\n".join(
        [
            f"<h2>{TITLES[space]}</h2>",
            f"<p>x and y in units of {UNITS[space]}</p>",
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
            {**_values(plane, limits), "type": "surface", "colorbar": {"thickness": 8, "len": 0.6}},
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
                "zaxis": {"range": [low, high], "nticks": 5, "title": {"text": "loss"}},
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
                "colorbar": {"thickness": 8},
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
