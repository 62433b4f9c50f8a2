"""Write the page on what prompts chose, from the folders of one or more studies.

    python docs/results/write_choices.py docs/results/choices.md STUDY_DIR [STUDY_DIR ...]

Every figure is made of `choices` in `result.json`: the selected state of each run on the reported
split. Means and standard deviations are over seeds.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import mean, pstdev

from softprompts.recipes.presets import METHODS

HEAD = """# What prompts chose

Made by `docs/results/write_choices.py` from the runs behind [presets](presets.md), [RTE](presets-rte.md) and
[few rows](presets-fewglue.md): the selected state of each run on the reported split, five seeds, 60 updates, 10 rows. `±` is
the standard deviation of these seeds, divided by their number; other pages divide by one less.

Two runs in pictures, made by `softprompts choices RUN`: [mixture and position per input](figures/adap-ins-vec-pos-cb.svg) and
[active length per input](figures/adap-ins-len-cb.svg), CommitmentBank, seed 0.
"""
SELECTOR = """
`mean` is the mean {what}, from 0 to 10. `kinds` is how many of the 11 choices were made for at least one input. `commonest` is
the share of inputs that got the commonest one. `entropy` is the mean entropy of the selector's probabilities, as a share of
the largest there can be: 1 is a selector that has no preference yet.

| task | method | mean | kinds | commonest | entropy |
| --- | --- | ---: | ---: | ---: | ---: |
"""
POOL = """
`largest` is the mean weight of the set with the largest one in a run (0.25 is an even mixture of four). `apart` is how far the mean
weights of two classes lie apart, as a share of the whole weight: 0 is the same mixture for both, 1 no set in common.

| task | method | largest | apart |
| --- | --- | ---: | ---: |
"""


def spread(values: list[float], digits: int = 2) -> str:
    """Return mean and standard deviation."""
    return f"{mean(values):.{digits}f} ± {pstdev(values):.{digits}f}"


def selector_row(found: list[dict]) -> list[str]:
    """Return figures on one selector over seeds."""
    means, kinds, commonest, entropies = [], [], [], []
    for choice in found:
        counts = choice["counts"]
        total = sum(counts)
        means.append(sum(i * n for i, n in enumerate(counts)) / total)
        kinds.append(sum(n > 0 for n in counts))
        commonest.append(max(counts) / total)
        entropies.append(choice["entropy"] / math.log(len(counts)))
    return [spread(means, 1), spread(kinds, 1), spread(commonest), spread(entropies)]


def pool_row(found: list[dict]) -> list[str]:
    """Return figures on one pool over seeds."""
    largest = [max(choice["weights"]) for choice in found]
    apart = []
    for choice in found:
        classes = list(choice.get("by_class", {}).values())
        pairs = [
            sum(abs(a - b) for a, b in zip(*pair, strict=True)) / 2
            for pair in combinations(classes, 2)
        ]
        apart += [mean(pairs)] if pairs else []
    return [spread(largest), spread(apart) if apart else "–"]


def order(config: dict) -> tuple[str, int, int]:
    """Return what runs are sorted by: task, then method as the presets are listed, then seed."""
    methods = list(METHODS)
    return config["task"]["name"], methods.index(config["prompt"]["method"]), config["seed"]


def main(arguments: list[str]) -> None:
    """Write the page."""
    page, *studies = arguments
    found: dict[str, dict[tuple[str, str], list[dict]]] = defaultdict(lambda: defaultdict(list))
    for study in studies:
        folders = sorted((Path(study) / "runs").iterdir())
        configs = {f: json.loads((f / "config.json").read_text())["config"] for f in folders}
        finished = [folder for folder in folders if (folder / "result.json").exists()]
        for folder in sorted(finished, key=lambda f: order(configs[f])):
            result = json.loads((folder / "result.json").read_text())
            where = (configs[folder]["task"]["name"], configs[folder]["prompt"]["method"])
            for axis, choice in (result["choices"] or {}).items():
                found[axis][where].append(choice)
    text = HEAD
    for axis, title, what in (
        ("position", "Position", "number of rows in front of the input"),
        ("length", "Active length", "number of active rows"),
    ):
        text += f"\n## {title}\n" + SELECTOR.format(what=what)
        for (task, variant), choices in found[axis].items():
            text += f"| {task} | {variant} | {' | '.join(selector_row(choices))} |\n"
    text += "\n## Pool\n" + POOL
    for (task, variant), choices in found["pool"].items():
        text += f"| {task} | {variant} | {' | '.join(pool_row(choices))} |\n"
    Path(page).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
