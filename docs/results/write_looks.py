"""Measure by simulation what adding seeds costs and finds, and write it into its page.

    python docs/results/write_looks.py simulate docs/results/looks.json
    python docs/results/write_looks.py page docs/results/looks.json docs/statistics.md

The first takes minutes. Scores of `k` variants share seeds and correlate by 0.3. They are normal, or
minus lognormal (most seeds are good, a few are bad), with a standard deviation of 1; the first
variant's mean is `size` higher. Where two are alike and the others lower, those are 3 lower. Each
study looks as `next_look` says, with the leader that it has there, until that is shown to beat
each other variant, or as `hope` has it no longer may.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from softprompts.lab.analysis.permutations import Looks, is_ever_over, ways_at
from softprompts.lab.studies.looks import LEAST_HOPE, hope
from softprompts.recipes.study_size import RATE, next_look

NUM_STUDIES, NUM_FIXED, NUM_EXACT, MOST, CORRELATION = 2000, 500, 12, 20, 0.3
VARIANTS, SIZES = (2, 3, 5), (0.5, 1.0, 1.5, 2.0)
FIXED = (6, 7, 8, 9, 10, 12, 14, 16, 18, 20)
START, END = "<!-- looks -->\n", "<!-- end of looks -->\n"
KINDS = {
    "normal": lambda z: z,
    "a few bad seeds": lambda z: -np.exp(z) / np.sqrt((np.e - 1) * np.e),
}


def scores_of(kind: str, means: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """Return scores, shape `(runs, seeds)`: a line per variant."""
    shared = generator.standard_normal(MOST)
    own = generator.standard_normal((len(means), MOST))
    z = CORRELATION**0.5 * shared + (1 - CORRELATION) ** 0.5 * own
    return KINDS[kind](z) + np.array(means)[:, None]


def beats_all(scores: np.ndarray, after: Sequence[int], most: int) -> tuple[int | None, float]:
    """Return the leader, if it is shown to beat all, and how far the closest is, by its error."""
    scores = scores[:, : after[-1]]
    first, *others = np.argsort(-scores.mean(axis=1))
    gaps = [scores[first] - scores[other] for other in others]
    looks = Looks(tuple(range(most)), tuple(after), most)
    near = sorted(gaps, key=lambda gap: gap.mean() / gap.std())
    z = float(near[0].mean() / (near[0].std(ddof=1) / np.sqrt(after[-1])))
    shown = all(
        is_ever_over(
            *ways_at([dict(enumerate(gap))], looks, np.random.default_rng(0), NUM_EXACT), RATE
        )
        for gap in near
    )
    return (int(first) if shown else None), z


def study(scores: np.ndarray) -> tuple[int | None, int]:
    """Return the leader of a study that adds seeds, if one is shown, and how many it took."""
    after: list[int] = []
    while True:
        after.append(next_look(after[-1] if after else 0, MOST, 5, 1))
        leader, z = beats_all(scores, after, MOST)
        is_over = after[-1] == MOST or hope(z, after[-1] / MOST) < LEAST_HOPE
        if leader is not None or is_over:
            return leader, after[-1]


def figures(kind: str, means: Sequence[float], num_studies: int, seed: int) -> dict[str, float]:
    """Return how often studies end with a leader, with a wrong one, and after how many seeds."""
    generator = np.random.default_rng(seed)
    ends, fixed = [], dict.fromkeys(FIXED, 0)
    has_best = means[0] > max(means[1:])
    for number in range(num_studies):
        scores = scores_of(kind, means, generator)
        ends.append(study(scores))
        if has_best and number < NUM_FIXED:
            for n in FIXED:
                fixed[n] += beats_all(scores, [n], n)[0] == 0
    right = [leader == 0 and has_best for leader, _ in ends]
    shown = [leader is not None for leader, _ in ends]
    found = {
        "right": float(np.mean(right)),
        "wrong": float(np.mean(shown) - np.mean(right)),
        "seeds": float(np.mean([seeds for _, seeds in ends])),
    }
    if has_best:
        powers = np.array([count / min(num_studies, NUM_FIXED) for count in fixed.values()])
        enough = np.flatnonzero(powers >= found["right"])
        found["fixed"] = FIXED[enough[0]] if len(enough) else MOST
        found["fixed_of_most"] = float(powers[-1])
    return found


def simulate(num_studies: int) -> dict[str, object]:
    """Return all figures."""
    cases: dict[str, list[float]] = {f"{k} alike": [0.0] * k for k in VARIANTS}
    cases |= {f"2 alike, {k - 2} lower": [0.0, 0.0] + [-3.0] * (k - 2) for k in VARIANTS[1:]}
    for k, size in product(VARIANTS, SIZES):
        cases[f"{k}, {size:g} apart"] = [size] + [0.0] * (k - 1)
    cells: dict[str, dict[str, object]] = {name: {} for name in cases}
    for number, ((name, means), kind) in enumerate(product(cases.items(), KINDS)):
        cells[name][kind] = figures(kind, means, num_studies, number)
        print(name, kind, cells[name][kind], file=sys.stderr, flush=True)
    return {"num_studies": num_studies, "most": MOST, "cells": cells}


def page(found: dict) -> str:
    """Return the part of the page that figures make."""
    count, rows = found["num_studies"], found["cells"]
    error = 100 * np.sqrt(RATE * (1 - RATE) / count)
    alike = {name: row for name, row in rows.items() if "alike" in name}
    lines = [
        f"{count} studies per cell, at most {found['most']} seeds. The standard error of a share "
        f"near 5 % is {error:.1f} points.",
        "",
        "How often a leader is shown though the best two are alike, in percent, and seeds used:",
        "",
        "| variants | normal | a few bad seeds | seeds |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, row in alike.items():
        wrong = " | ".join(f"{100 * row[kind]['wrong']:.1f}" for kind in KINDS)
        lines.append(f"| {name} | {wrong} | {row['normal']['seeds']:.1f} |")
    pairs = [
        cell["wrong"] for name, row in alike.items() if name[0] == "2" for cell in row.values()
    ]
    lines += [
        "",
        f"Of all {count * len(pairs)} studies whose best two are alike, {100 * np.mean(pairs):.1f} %.",
        "",
        "Where one is better, by so many standard deviations: how often it is shown, in percent "
        "(how often by one test of 20 seeds), a wrong one, the mean number of seeds, the "
        "least fixed number that shows it as often, and how many runs that saves, in percent:",
        "",
        "| variants | scores | shown | wrong | seeds | fixed | saved |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        for kind, cell in row.items() if name not in alike else ():
            saved = 100 * (1 - cell["seeds"] / cell["fixed"])
            lines.append(
                f"| {name} | {kind} | {100 * cell['right']:.0f} ({100 * cell['fixed_of_most']:.0f})"
                f" | {100 * cell['wrong']:.1f} | {cell['seeds']:.1f} | {cell['fixed']:.1f} | "
                f"{saved:.0f} |"
            )
    return "\n".join([*lines, ""])


def refreshed(text: str, found: dict) -> str:
    """Return a page with its figures made again."""
    before, _, rest = text.partition(START)
    return before + START + page(found) + END + rest.partition(END)[2]


def main(arguments: list[str]) -> None:
    """Simulate, or write the page."""
    verb, data, *rest = arguments
    if verb == "simulate":
        found = simulate(int(rest[0]) if rest else NUM_STUDIES)
        Path(data).write_text(json.dumps(found, indent=1) + "\n")
        return
    text = Path(rest[0]).read_text()
    before, _, tail = text.partition(START)
    after = tail.partition(END)[2]
    Path(rest[0]).write_text(
        before + START + page(json.loads(Path(data).read_text())) + END + after
    )


if __name__ == "__main__":
    main(sys.argv[1:])
