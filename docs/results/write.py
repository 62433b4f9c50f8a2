"""Write a results page from a study's folder.

    python docs/results/write.py STUDY_DIR RECIPE.yaml docs/results/NAME.md "Title" ["note" ...]

The page says what was run, on what, within which budget, and how it went; nothing in it is typed by
hand but the title and the notes.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch

from softprompts.lab.reports.table import HEADINGS, notes, score_rows


def main(arguments: list[str]) -> None:
    """Write the page."""
    study, recipe, page, title, *remarks = arguments
    summary = json.loads((Path(study) / "summary.json").read_text())
    about = [json.loads(p.read_text()) for p in sorted(Path(study).glob("runs/*/config.json"))]
    dtypes = sorted({entry["dtype"] for entry in about})
    versions = about[0]["versions"]
    seconds = sum(line["seconds"] for line in summary["cells"])
    capabilities = torch.cpu.get_capabilities()
    text = [
        f"# {title}",
        "",
        f"{summary['num_finished']} of {summary['num_runs']} runs, {seconds / 60:.0f} minutes of "
        f"run time in all on {capabilities['num_logical_cores']} cores ({platform.machine()}, "
        f"{capabilities.get('cpu_name', 'unknown processor')}), backbone in "
        f"{' and '.join(dtypes)}. softprompts {versions['softprompts']}, torch "
        f"{versions['torch']}, transformers {versions['transformers']}.",
        "",
        "Scores in percent: mean ± standard deviation over seeds. The state that is reported was "
        "selected on held-out rows; the reported split was scored once at the end. `majority` is "
        "the score of the best constant answer.",
        "",
        _table(summary),
        "## Last state instead of the selected one",
        "",
        _table({**summary, "cells": [{**c, **c["last"]} for c in summary["cells"]]}),
        *([f"- {note}" for note in (*notes(summary), *remarks)]),
        "",
        "## The recipe",
        "",
        "```yaml",
        Path(recipe).read_text().rstrip(),
        "```",
    ]
    Path(page).write_text("\n".join(text) + "\n")


def _table(summary: dict[str, Any]) -> str:
    """Return the table; a task that a grid spells out whole is called by its training file."""
    rows = [HEADINGS, [" --- "] * 2 + [" ---: "] * (len(HEADINGS) - 2), *score_rows(summary)]
    text = "".join(f"| {' | '.join(map(str.strip, row))} |\n" for row in rows)
    return re.sub(r"task=\{[^|]*'train': '([^']+)'[^|]*\}", r"\1", text)


if __name__ == "__main__":
    main(sys.argv[1:])
