r"""Write the page on robustness and its figures from the folders of sweeps.

    softprompts study sweep-learning-rate --out STUDY
    python docs/results/write_sweeps.py PAGE.md STUDY ... [-- "note" ...]

Figures lie beside the page, in `figures/NAME.svg`. Nothing on the page is typed by hand but the
notes.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from softprompts.lab.analysis.robustness import HELD_OUT, REPORTED
from softprompts.lab.analysis.statistics import mean_interval
from softprompts.lab.reports.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Panel,
    add_legend,
    save,
    stack,
    style,
)
from softprompts.lab.reports.robustness import number, start_of_axis, width

Found = Mapping[str, Any]

LOOKS = ((BLUE, "-o"), (ORANGE, "--s"), (GREEN, "-.^"), (GREY, ":d"))
"""Colour and line of each variant in turn."""

RULES = (
    "Every value is judged by rows *held out from train*, and the score of the value that they "
    "choose is that on the *reported* rows, which chose nothing. `plateau` is the stretch of "
    "values around the held-out best whose means lie within one point of it; a value at which a "
    "run diverged is off it. `loss` is how much the held-out mean is lower at the default than at "
    "the best value, with a 95 % interval over seeds by Student's t of the paired differences; "
    "the best is the highest of several means, so the loss is too high on average, and its "
    "interval too. Scores in percent. Bands in the figures are 95 % intervals over seeds; dotted "
    "lines are defaults. See [statistics](../statistics.md#swept-fields)."
)


def main(arguments: list[str]) -> None:
    """Write the page."""
    name, *rest = arguments
    split = rest.index("--") if "--" in rest else len(rest)
    folders, remarks = [Path(folder) for folder in rest[:split]], rest[split + 1 :]
    page = Path(name)
    studies = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    text = ["# Robustness", "", *head(studies, folders), RULES, ""]
    for study in studies:
        text += section(study)
        content = picture(study)
        if content is not None:
            (page.parent / "figures").mkdir(exist_ok=True)
            (page.parent / "figures" / f"{study['name']}.svg").write_bytes(content)
            text += [f"![{study['name']}](figures/{study['name']}.svg)", ""]
    text += ["## Are the defaults on the plateau?", "", *verdicts(studies)]
    text += [*(f"- {one}" for one in remarks), ""]
    page.write_text("\n".join(text) + "\n")


def head(studies: Sequence[Found], folders: Sequence[Path]) -> list[str]:
    """Return how much was run, where, and with which commands."""
    about = [json.loads(p.read_text()) for f in folders for p in f.glob("runs/*/config.json")]
    versions, capabilities = about[0]["versions"], torch.cpu.get_capabilities()
    finished, planned = (sum(s[key] for s in studies) for key in ("num_finished", "num_runs"))
    minutes = sum(cell["seconds"] for s in studies for cell in s["cells"]) / 60
    dtypes = " and ".join(sorted({one["dtype"] for one in about}))
    return [
        f"{finished} of {planned} runs, {minutes:.0f} minutes of run time on one thread "
        f"({platform.machine()}, {capabilities.get('cpu_name', 'unknown processor')}), backbone in "
        f"{dtypes}. softprompts {versions['softprompts']}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}.",
        "",
        "<!-- not run: minutes of training each -->",
        "```console",
        *(f"$ softprompts study {study['name']}" for study in studies),
        "```",
        "",
    ]


def section(study: Found) -> list[str]:
    """Return the tables of one study."""
    found = study["robustness"]
    lines = [f"## {study['name']}", ""]
    for field in dict.fromkeys(curve["field"] for curve in found["curves"]):
        curves = [curve for curve in found["curves"] if curve["field"] == field]
        lines += [f"`{field}`, scores on {REPORTED} rows, mean over seeds:", ""]
        lines += wide(curves, [number(value) for value in curves[0]["values"]])
        if any(curve["rows"] == HELD_OUT for curve in curves):
            lines += ["Chosen on held-out rows:", "", *choices(study, curves)]
    for field in dict.fromkeys(one["field"] for one in found["levels"]):
        bars = [one for one in found["levels"] if one["field"] == field]
        lines += [f"`{field}`, scores on {REPORTED} rows, mean over seeds:", ""]
        lines += wide(bars, list(bars[0]["names"]))
        if any(one["rows"] == HELD_OUT for one in bars):
            lines += ["Chosen on held-out rows:", "", *choices(study, bars)]
    return lines


def wide(group: Sequence[Found], names: Sequence[str]) -> list[str]:
    """Return a table with a column per swept value; `†` for each run that diverged."""
    lines = ["| task | variant | " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(names)]
    for found in group:
        if found["rows"] == REPORTED:
            cells = [
                ("—" if mean is None else f"{100 * mean:.1f}") + "†" * diverged
                for mean, diverged in zip(found["means"], found["diverged"], strict=True)
            ]
            lines.append("| " + " | ".join([*about(found), *cells]) + " |")
    return [*lines, ""]


def choices(study: Found, group: Sequence[Found]) -> list[str]:
    """Return a table of what held-out rows choose, and what the default loses by them."""
    lines = [
        "| task | variant | best | plateau | width | reported there | default | reported there "
        "| loss |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for held_out, reported in pairs(group):
        best, default, shown = best_of(held_out), default_of(held_out), []
        if "plateau" in held_out:
            ends = held_out["plateau"]
            shown = ["—" if ends is None else f"{number(ends[0])} to {number(ends[1])}"]
            shown += [width(held_out)]
        else:
            near = held_out["near_best"]
            shown = [", ".join(near) or "—", f"{len(near)} of {len(held_out['names'])}"]
        scores = [mean_at(reported, best), mean_at(reported, default)]
        percents = ["—" if mean is None else f"{100 * mean:.1f}" for mean in scores]
        row = [*about(held_out), spelled(best), *shown, percents[0], spelled(default), percents[1]]
        lines.append("| " + " | ".join([*row, loss(study, held_out)]) + " |")
    return [*lines, ""]


def verdicts(studies: Sequence[Found]) -> list[str]:
    """Return, per field, on how many curves the default lies on the held-out plateau."""
    lines = []
    for study in studies:
        for kind in ("curves", "levels"):
            group = [one for one in study["robustness"][kind] if one["rows"] == HELD_OUT]
            for field in dict.fromkeys(one["field"] for one in group):
                own = [one for one in group if one["field"] == field and is_on(one) is not None]
                off = [one for one in own if not is_on(one)]
                if own:
                    shown = ", ".join(spelled(v) for v in dict.fromkeys(map(default_of, own)))
                    lines.append(
                        f"- `{field}` = {shown}: on the held-out plateau in {len(own) - len(off)} "
                        f"of {len(own)} curves."
                    )
                lines += [
                    f"    - Off it: {' '.join(about(one))}. Best at {spelled(best_of(one))}, loss "
                    f"{loss(study, one)}{doubt(study, one)}."
                    for one in off
                ]
    return lines


def loss(study: Found, held_out: Found) -> str:
    """Return how much the default loses to the best value on held-out rows, with its interval."""
    best, default = (cell_at(study, held_out, f(held_out)) for f in (best_of, default_of))
    if best is None or default is None:
        return "—"
    if best is default:
        return "0"
    seeds = [seed for seed in best["seeds"] if seed in default["seeds"]]
    high, low = (
        dict(zip(c["seeds"], c["held_out"]["scores"], strict=True)) for c in (best, default)
    )
    differences = [100 * (high[seed] - low[seed]) for seed in seeds]
    if not differences:
        return "—"
    text, found = f"{sum(differences) / len(differences):.1f}", mean_interval([differences])
    return text if found is None else f"{text} [{found[0]:.1f}, {found[1]:.1f}]"


def doubt(study: Found, held_out: Found) -> str:
    """Return that a loss is not shown, where its interval holds 0 or there is none."""
    low = loss(study, held_out).partition("[")[2].partition(",")[0]
    return "" if low and float(low) > 0 else ", which these seeds do not show: it may be 0"


def cell_at(study: Found, found: Found, value: Any) -> Found | None:
    """Return the cell of a curve's variant and task at a value or level; `None` if it has none."""
    places = found.get("values", found.get("names"))
    if value not in places:
        return None
    own = [
        cell
        for cell in study["cells"]
        if (cell["variant"], cell["task"]) == (found["variant"], found["task"])
        and all(cell["point"].get(name) == held for name, held in found["point"].items())
    ]
    if "values" in found:
        own = [cell for cell in own if cell["point"][found["field"]] == value]
        return own[0]
    return own[places.index(value)]


def pairs(group: Sequence[Found]) -> Iterator[tuple[Found, Found]]:
    """Yield each held-out curve with the reported one."""
    key = ("field", "task", "variant", "point")
    for held_out in group:
        if held_out["rows"] == HELD_OUT:
            yield (
                held_out,
                next(
                    one
                    for one in group
                    if one["rows"] == REPORTED and all(one[k] == held_out[k] for k in key)
                ),
            )


def about(found: Found) -> tuple[str, str]:
    """Return task and variant, with the other fields of the grid."""
    more = " ".join(f"{field}={value}" for field, value in found["point"].items())
    return found["task"], f"{found['variant']} {more}".strip()


def best_of(found: Found) -> Any:
    """Return the best value or name."""
    return found.get("best_value", found.get("best_name"))


def default_of(found: Found) -> Any:
    """Return the default value or name."""
    return found.get("default_value", found.get("default_name"))


def is_on(found: Found) -> bool | None:
    """Return whether the default lies on the plateau; `None` where that cannot be said."""
    if "names" in found:
        default = found["default_name"]
        return default in found["near_best"] if default in found["names"] else None
    on: bool | None = found["is_default_on_plateau"]
    return on


def mean_at(found: Found, value: Any) -> float | None:
    """Return a mean by value or name."""
    places = list(found.get("values", found.get("names")))
    mean: float | None = found["means"][places.index(value)] if value in places else None
    return mean


def spelled(value: Any) -> str:
    """Return a value or name as text."""
    return value if isinstance(value, str) else "—" if value is None else number(value)


def picture(study: Found) -> bytes | None:
    """Return the figure of a study's curves on reported rows, a panel per task; `None` without."""
    curves = [one for one in study["robustness"]["curves"] if one["rows"] == REPORTED]
    groups: dict[tuple[str, str], list[Found]] = {}
    for curve in curves:
        groups.setdefault((curve["task"], curve["field"]), []).append(curve)
    if not groups:
        return None

    def panel(task: str, field: str, group: Sequence[Found]) -> Panel:
        def draw(axes: Axes) -> None:
            for curve, (colour, look) in zip(group, LOOKS, strict=False):
                draw_curve(axes, curve, colour, look)
            for default in {c["default_value"] for c in group} - {None}:
                axes.axvline(default, color="black", linewidth=0.8, linestyle=":")
            values = group[0]["values"]
            if start_of_axis(values) is not None:
                axes.set_xscale("log")
                axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(drawn_at(values), [number(value) for value in values])
            axes.set_xlabel(field)
            axes.set_ylabel("score, %")
            handles, _ = axes.get_legend_handles_labels()
            add_legend(axes, handles, task, 2)

        return Panel(1.6, draw, -(-len(group) // 2))

    with style():
        panels = [panel(*key, group) for key, group in groups.items()]
        return save(stack(panels, study["name"], ["Reported rows; bands: 95 % over seeds"]), "svg")


def drawn_at(values: Sequence[float]) -> list[float]:
    """Return where swept values stand on their axis: a 0 where a logarithmic one begins."""
    start = start_of_axis(values)
    return [value if start is None else max(value, start) for value in values]


def draw_curve(axes: Axes, curve: Found, colour: str, look: str) -> None:
    """Draw a curve with its band."""
    known = [n for n, mean in enumerate(curve["means"]) if mean is not None]
    places = drawn_at(curve["values"])
    values = [places[n] for n in known]
    means = [100 * curve["means"][n] for n in known]
    axes.plot(values, means, look, color=colour, markersize=3.5, label=about(curve)[1])
    sure = [n for n in known if curve["lows"][n] is not None]
    ends = [[max(0.0, min(100.0, 100 * curve[k][n])) for n in sure] for k in ("lows", "highs")]
    axes.fill_between([places[n] for n in sure], *ends, color=colour, alpha=0.12, lw=0)


if __name__ == "__main__":
    main(sys.argv[1:])
