"""Write the results of each method into its page, from the folders of studies of all presets.

    python docs/results/write_methods.py PAGE=STUDY_DIR [PAGE=STUDY_DIR ...]

PAGE is the page in docs/results that holds the whole table. What stands between the markers in
docs/methods/NAME.md is replaced; nothing in it is typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from softprompts.recipes.presets import METHODS

PAGES = Path(__file__).resolve().parents[1] / "methods"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NAMES = {"plain": "prompt-tuning"}
INTRO = (
    "Five seeds, 60 updates of 8 rows at a rate of 0.01, `unit: absolute`, `minilm`, linear readout; percent, mean ± standard\n"
    "deviation of the state selected on held-out rows. The pages hold the command, the recipe and all methods side by\n"
    "side.\n"
)
HEADINGS = "| task | score | `head-only` | majority | items | page |\n| --- | ---: | ---: | ---: | ---: | --- |\n"


def percent(cell: dict) -> str:
    """Return mean and standard deviation."""
    return f"{100 * cell['mean']:.1f} ± {100 * cell['std']:.1f}"


def main(arguments: list[str]) -> None:
    """Write the pages."""
    lines: dict[str, str] = dict.fromkeys(METHODS, "")
    for argument in arguments:
        page, _, study = argument.partition("=")
        cells = json.loads((Path(study) / "summary.json").read_text())["cells"]
        named = {(NAMES.get(c["variant"], c["variant"]), c["task"]): c for c in cells}
        for (method, task), cell in named.items():
            head = named["head-only", task]
            lines[method] += (
                f"| {task} | {percent(cell)} | {percent(head)} | {100 * cell['majority']:.1f} | "
                f"{cell['num_items']} | [{page.removesuffix('.md')}](../results/{page}) |\n"
            )
    for method, rows in lines.items():
        path = PAGES / f"{method}.md"
        text = path.read_text()
        block = f"{BEGIN}\n{INTRO}\n{HEADINGS}{rows}{END}\n"
        if BEGIN in text:
            before, rest = text.split(BEGIN)
            text = before + block + rest.split(f"{END}\n")[1]
        else:
            text = text.replace("## Results\n", f"## Results\n\n{block}")
        path.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
