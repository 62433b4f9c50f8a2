"""How often does what `fit` expects hold on new rows? Many small fits, each on rows of its own.

    python benchmarks/fit_coverage.py --fits 100 --out benchmarks/results/fit-coverage.json

Each fit has `--rows` rows of a bundled task. The accuracy of its ensemble on all other rows of the
task is what its interval should hold. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import softprompts as sp
from softprompts.tasks.loading import load_task


def main() -> None:
    """Fit, count, and write what was found after every fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=100)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--task", default="bundled/sentiment")
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--budget", default="1s")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    task = load_task(given.task)
    pool = [
        (*row.fields.values(), task.format.labels[row.answers[0]])
        for row in (*task.train, *task.validation)
    ]
    names = [*task.train[0].fields, "label"]
    found = json.loads(given.out.read_text())["fits"] if given.out.exists() else []
    for seed in range(len(found), given.fits):
        found.append(one_fit(pool, names, seed, given))
        held = sum(one["low"] <= one["new"] <= one["high"] for one in found)
        about = {"held": held, "num_fits": len(found), **vars(given), "out": None, "fits": found}
        given.out.write_text(json.dumps(about, indent=1, default=str) + "\n")
        print(f"{held} of {len(found)} hold; {found[-1]}", flush=True)


def one_fit(
    pool: list[tuple[str, ...]], names: list[str], seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Fit some rows; return what was expected, and what the other rows say."""
    rows = list(dict.fromkeys(pool))
    random.Random(seed).shuffle(rows)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "table.csv")
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows[: given.rows]])
        made = sp.fit(path, given.backbone, budget=given.budget, out=Path(place, "out"))
        new = rows[given.rows :]
        inputs = [dict(zip(names[:-1], row[:-1], strict=True)) for row in new]
        answers = made.ensemble.predict(inputs)
        right = sum(answer == row[-1] for answer, row in zip(answers, new, strict=True))
    low, high = made.summary["expected"]["interval"]
    expected = made.summary["expected"]["score"]
    return {"seed": seed, "expected": expected, "low": low, "high": high, "new": right / len(new)}


if __name__ == "__main__":
    main()
