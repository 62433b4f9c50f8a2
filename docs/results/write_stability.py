r"""Write the page on stability: spread over seeds by method, and whether sharpness foretells it.

    softprompts study stability --out STUDY
    softprompts landscape STUDY --sharpness-only --measures input --num-examples 32 --quick \
        --json > SHARPNESS.json
    python docs/results/write_stability.py RECIPE.yaml PAGE.md STUDY[=SHARPNESS.json] \
        [-- "note" ...]

Nothing on the page is typed by hand but the notes.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rank_correlation import RankCorrelation, mean_and_spread
from write_ptp import RADIUS, add_sharpness, chance, line, shown

from softprompts.lab.reports.table import notes
from softprompts.seeding import derive

Cell = Mapping[str, Any]
Sharpness = Mapping[tuple[str, str, str], list[float]]
ALL_ROWS = "all training rows"


def main(arguments: list[str]) -> None:
    """Write the page."""
    recipe, page, study, *rest = arguments
    folder, _, measured = study.partition("=")
    summary = json.loads((Path(folder) / "summary.json").read_text())
    sharpness: dict[tuple[str, str, str], list[float]] = {}
    if measured:
        add_sharpness(json.loads(Path(measured).read_text())["runs"], sharpness)
    about = [json.loads(p.read_text()) for p in Path(folder).glob("runs/*/config.json")]
    text = [*head(summary, about), *tables(summary, sharpness), *on_average(summary)]
    text += conclusions(summary, sharpness)
    text += [*(f"- {one}" for one in (*notes(summary), *rest[1:])), ""]
    text += ["## The recipe", "", "```yaml", Path(recipe).read_text().rstrip(), "```"]
    Path(page).write_text("\n".join(text) + "\n")


def head(summary: Cell, about: Sequence[Cell]) -> list[str]:
    """Return title, budget and what the columns are."""
    versions, capabilities = about[0]["versions"], torch.cpu.get_capabilities()
    minutes = sum(cell["seconds"] for cell in summary["cells"]) / 60
    return [
        "# Stability",
        "",
        f"{summary['num_finished']} of {summary['num_runs']} runs, {minutes:.0f} minutes of run "
        f"time on one thread ({platform.machine()}, "
        f"{capabilities.get('cpu_name', 'unknown processor')}), backbone in {about[0]['dtype']}. "
        f"softprompts {versions['softprompts']}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}.",
        "",
        "How much does the seed move each method? Every variant has the same updates and rows; the "
        "last state is scored once. Scores in percent. `mean` and `difference` to "
        f"{summary['baseline']} have 95 % intervals over seeds; its `p` is a paired sign-flip "
        "test. `ratio of std` is a variant's standard deviation over the baseline's with its 95 % "
        "interval, its `p` Brown–Forsythe's. Both are corrected by Holm over all variants on all "
        "tasks, and averages by themselves. `sharpness` "
        "is the mean largest increase of the loss of training inputs within "
        f"{RADIUS} root-mean-squares of the embedding table, with its 95 % interval over seeds "
        "([landscapes](../landscapes.md), [statistics](../statistics.md)).",
        "",
    ]


def tables(summary: Cell, sharpness: Sharpness) -> list[str]:
    """Return a table for each task."""
    lines = []
    for task, own in by_task(summary).items():
        lines += [
            f"## {task}",
            "",
            f"{own[0]['num_items']} rows scored, majority {100 * own[0]['majority']:.1f}.",
            "",
            "| variant | mean | std | difference | p | ratio of std | p | sharpness |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for cell in own:
            found = next((c for c in summary["comparisons"] if is_of(c, cell)), None)
            flat = sharpness.get((cell["variant"], task, ALL_ROWS), [])
            lines.append(line(cell, found, flat))
        lines.append("")
    return lines


def on_average(summary: Cell) -> list[str]:
    """Return the table of averages over tasks, seed by seed."""
    lines = [
        "## Average over tasks",
        "",
        "| variant | mean | std | difference | p | ratio of std | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for average in summary["averages"]:
        about = (average["variant"], average["tasks"])
        joint = (c for c in summary["comparisons"] if (c["variant"], c["tasks"]) == about)
        row = line({**average["over_seeds"], "variant": average["variant"]}, next(joint, None), [])
        lines.append(row.removesuffix("  |").rstrip())
    return [*lines, ""]


def conclusions(summary: Cell, sharpness: Sharpness) -> list[str]:
    """Return what may be concluded, and how sharpness goes with spread."""
    lines = ["## What may be concluded", "", *shown(summary["comparisons"], summary["baseline"])]
    for task, own in by_task(summary).items():
        flat = [sharpness.get((cell["variant"], task, ALL_ROWS), []) for cell in own]
        usable = [
            (one, cell["scores"])
            for one, cell in zip(flat, own, strict=True)
            if one and len(cell["scores"]) > 1
        ]
        if len(usable) > 2:
            draws = np.random.default_rng(derive(0, f"sharpness {task}"))
            lines.append(in_words(task, mean_and_spread(*zip(*usable, strict=True), draws)))
    return lines


def in_words(task: str, found: RankCorrelation) -> str:
    """Return what a rank correlation of sharpness and spread says."""
    text = f"- {task}: over {found.num_variants} variants, sharpness and standard deviation have "
    if found.value is None:
        return f"{text}no rank correlation: one of them is the same for all."
    parts = [
        f"95 % over {what}: {ends[0]:+.2f} to {ends[1]:+.2f}"
        for what, ends in (("seeds", found.over_seeds), ("variants", found.over_variants))
        if ends is not None
    ]
    verdict = "It may not be concluded that sharpness foretells spread here."
    if found.p is not None and found.p < 0.05:
        how = "more" if found.value > 0 else "less"
        verdict = f"It may be concluded that sharper variants spread {how} here."
    return (
        f"{text}a rank correlation of {found.value:+.2f} ({'; '.join(parts)}; p = "
        f"{chance(found.p)}). {verdict}"
    )


def is_of(comparison: Cell, cell: Cell) -> bool:
    """Return whether a comparison is of a cell's variant on its task alone."""
    about = (comparison["variant"], comparison["tasks"])
    return about == (cell["variant"], [cell["task"]])


def by_task(summary: Cell) -> dict[str, list[Cell]]:
    """Return the cells of each task."""
    found: dict[str, list[Cell]] = {}
    for cell in summary["cells"]:
        found.setdefault(cell["task"], []).append(cell)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
