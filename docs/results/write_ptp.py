r"""Write the page on what PTP's perturbations do to spread and sharpness, from studies' folders.

    softprompts study ptp --out STUDY             # or ptp-conditions
    softprompts landscape STUDY --sharpness-only --measures input --num-examples 32 --quick \
        --json > SHARPNESS.json
    python docs/results/write_ptp.py RECIPE.yaml PAGE.md STUDY[=SHARPNESS.json] ... [-- "note" ...]

A study in parts, one folder for some of its tasks, gives the page of all. Nothing on the page is
typed by hand but the notes.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from softprompts.lab.analysis.statistics import spread

RADIUS = 0.1
"""Of the ball in which sharpness is the loss's largest increase; see docs/landscapes.md."""

Cell = Mapping[str, Any]


def main(arguments: list[str]) -> None:
    """Write the page."""
    recipe, page, *rest = arguments
    split = rest.index("--") if "--" in rest else len(rest)
    studies, remarks = rest[:split], rest[split + 1 :]
    cells: list[Cell] = []
    comparisons: list[Cell] = []
    sharpness: dict[tuple[str, str, str], list[float]] = {}
    about: list[Cell] = []
    for study in studies:
        folder, _, measured = study.partition("=")
        summary = json.loads((Path(folder) / "summary.json").read_text())
        cells += summary["cells"]
        comparisons += summary["comparisons"]
        about += [json.loads(p.read_text()) for p in Path(folder).glob("runs/*/config.json")]
        if measured:
            add_sharpness(json.loads(Path(measured).read_text())["runs"], sharpness)
    title = yaml.safe_load(Path(recipe).read_text())["description"]
    text = [*head(title, cells, about), *tables(cells, comparisons, sharpness)]
    text += [*conclusions(comparisons, cells, sharpness), *(f"- {one}" for one in remarks), ""]
    text += ["## The recipe", "", "```yaml", Path(recipe).read_text().rstrip(), "```"]
    Path(page).write_text("\n".join(text) + "\n")


def add_sharpness(rows: Iterable[Cell], found: dict[tuple[str, str, str], list[float]]) -> None:
    """Take note of the sharpness of each run that was measured."""
    for row in rows:
        if row.get("input"):
            (one,) = [r["worst"] for r in row["input"]["radii"] if r["radius"] == RADIUS]
            found.setdefault((row["variant"], row["task"], setting(row["point"])), []).append(one)


def head(title: str, cells: list[Cell], about: list[Cell]) -> list[str]:
    """Return title, budget and what the columns are."""
    versions, capabilities = about[0]["versions"], torch.cpu.get_capabilities()
    runs = sum(len(cell["seeds"]) for cell in cells)
    missing = sum(len(cell["missing"]) for cell in cells)
    minutes = sum(cell["seconds"] for cell in cells) / 60
    return [
        f"# {title}",
        "",
        f"{runs} finished runs ({missing} without a score), {minutes:.0f} minutes of run time on "
        f"{capabilities['num_logical_cores']} cores ({platform.machine()}, "
        f"{capabilities.get('cpu_name', 'unknown processor')}), backbone in {about[0]['dtype']}. "
        f"softprompts {versions['softprompts']}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}.",
        "",
        "PTP adds a penalty on perturbed inputs ([regularizers](../regularizers.md)). Every variant "
        "of a table has the same updates; the last state is scored once. Scores in percent. `mean` "
        "and `difference` to plain have 95 % intervals over seeds; `p` is a paired sign-flip test. "
        "`ratio of std` is a variant's standard deviation over plain's with its 95 % interval, `p` "
        "Brown–Forsythe's. Both are corrected by Holm over all variants and tasks with the same "
        "setting, but each part of a study by itself. `sharpness` is the mean "
        "largest increase of the loss of training inputs within "
        f"{RADIUS} root-mean-squares of the embedding table, with its 95 % interval over seeds "
        "([landscapes](../landscapes.md), [statistics](../statistics.md)).",
        "",
    ]


def tables(
    cells: list[Cell],
    comparisons: list[Cell],
    sharpness: Mapping[tuple[str, str, str], list[float]],
) -> list[str]:
    """Return a table for each task and number of training rows."""
    lines = []
    for task, own_setting in dict.fromkeys((c["task"], setting(c["point"])) for c in cells):
        own = [c for c in cells if (c["task"], setting(c["point"])) == (task, own_setting)]
        lines += [
            f"## {task}, {own_setting}",
            "",
            f"{own[0]['num_items']} rows scored, majority {100 * own[0]['majority']:.1f}.",
            "",
            "| variant | mean | std | difference | p | ratio of std | p | sharpness |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for cell in own:
            found = [c for c in comparisons if is_about(c, cell)]
            flat = sharpness.get((cell["variant"], task, own_setting), [])
            lines.append(line(cell, found[0] if found else None, flat))
        lines.append("")
    return lines


def line(cell: Cell, comparison: Cell | None, sharpness: list[float]) -> str:
    """Return a row of a table."""
    if cell["mean"] is None or cell["std"] is None:
        return f"| {cell['variant']} | — | — | — | — | — | — | — |"
    parts = [cell["variant"], percent(cell["mean"], cell["interval"]), f"{100 * cell['std']:.1f}"]
    if comparison is None or comparison["difference"] is None:
        parts += ["", "", "", ""]
    else:
        one = comparison
        ratio = "—" if one["std_ratio"] is None else f"{one['std_ratio']:.2f}"
        if one["std_ratio_interval"] is not None:
            low, high = one["std_ratio_interval"]
            ratio += f" [{low:.2f}, {high:.2f}]"
        parts += [percent(one["difference"], one["interval"]), chance(one["p_adjusted"])]
        parts += [ratio, chance(one["p_spread_adjusted"])]
    flat = spread(sharpness)
    steep = "" if flat.mean is None else f"{flat.mean:.2f}"
    if flat.interval is not None:
        steep += f" [{flat.interval[0]:.2f}, {flat.interval[1]:.2f}]"
    return "| " + " | ".join([*parts, steep]) + " |"


def conclusions(
    comparisons: list[Cell],
    cells: list[Cell],
    sharpness: Mapping[tuple[str, str, str], list[float]],
) -> list[str]:
    """Return what may be concluded, and how sharpness goes with spread."""
    from scipy.stats import spearmanr

    lines = ["## What may be concluded", "", *shown(comparisons, "plain")]
    for task, own_setting in dict.fromkeys((c["task"], setting(c["point"])) for c in cells):
        pairs = [
            (fmean(sharpness[c["variant"], task, own_setting]), c["std"])
            for c in cells
            if (c["task"], setting(c["point"])) == (task, own_setting)
            and sharpness.get((c["variant"], task, own_setting))
            and c["std"] is not None
        ]
        if len(pairs) > 2:
            found = spearmanr(*zip(*pairs, strict=True))
            lines.append(
                f"- {task}, {own_setting}: over {len(pairs)} variants, sharpness and standard "
                f"deviation have a rank correlation of {found.statistic:+.2f} "
                f"(p {chance(float(found.pvalue))})."
            )
    return lines


def shown(comparisons: list[Cell], baseline: str) -> list[str]:
    """Return how many comparisons show something after correction, and what they show."""
    spreads = [c for c in comparisons if is_below(c["p_spread_adjusted"], 0.05)]
    means = [c for c in comparisons if is_below(c["p_adjusted"], 0.05)]
    lower = sum(is_below(c["std_ratio"], 1) for c in comparisons)
    return [
        f"- Of {len(comparisons)} comparisons with {baseline}, {lower} have a smaller standard "
        f"deviation; {len(spreads)} differ in spread and {len(means)} in the mean after "
        "correction.",
        *(f"- {c['conclusion_on_spread']}" for c in spreads),
        *(f"- {c['conclusion']}" for c in means),
    ]


def is_below(value: float | None, limit: float) -> bool:
    """Return whether there is a value, 0 too, and it is below a limit."""
    return value is not None and value < limit


def is_about(comparison: Cell, cell: Cell) -> bool:
    """Return whether a comparison is of a cell's variant on its task and rows."""
    return (
        comparison["variant"] == cell["variant"]
        and comparison["tasks"] == [cell["task"]]
        and setting(comparison["point"]) == setting(cell["point"])
    )


def setting(point: Mapping[str, Any]) -> str:
    """Return a point of the grid in words, task aside; no two points have the same."""
    fields = [field for field in ("task.shots_total", "task.sample_seed") if field in point]
    fields += [field for field in point if field not in (*fields, "task.name")]
    parts = [spelled(field, point[field]) for field in fields]
    return ", ".join(parts) or "all training rows"


def spelled(field: str, value: Any) -> str:
    """Return a field of the grid in words."""
    if field == "task.shots_total":
        return "all training rows" if value is None else f"{value} training rows"
    if field == "task.sample_seed":
        return "a sample of rows per seed" if value is None else "one sample of rows for all"
    if field == "readout.pool":
        return {"mean": "mean of the states", "cls": "first state"}.get(value, f"pool {value}")
    return f"{field.rpartition('.')[2].replace('_', ' ')} {value}"


def percent(value: float, interval: Iterable[float] | None) -> str:
    """Return a value in percent with its interval."""
    text = f"{100 * value:.1f}"
    if interval is not None:
        low, high = interval
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def chance(p: float | None) -> str:
    """Return a p-value."""
    if p is None:
        return "—"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


if __name__ == "__main__":
    main(sys.argv[1:])
