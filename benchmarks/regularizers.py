"""What a training step with each perturbation costs, as a ratio to one without, and its limit.

    python benchmarks/regularizers.py [--task bundled/entailment] [--rounds 25] [--out FILE.json]

All runs train in one process and take turns, one update each per round, so that a busy machine
slows all of them alike; ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import softprompts as sp
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.training.building import build_model, build_optimizer, build_plan
from softprompts.training.evaluation import EncodedSplit
from softprompts.training.journal import NoJournal
from softprompts.training.member import Member
from softprompts.training.pack import update_pack
from softprompts.training.regularizing import build_regularizers

STEPS = 3
ASCENT = {"kind": "gradient-ascent", "steps": STEPS}
CASES = {
    "plain": (None, 1.0),
    "gaussian-noise": ("gaussian-noise", 2.0),
    "masking": ("masking", 2.0),
    "gradient-ascent": (ASCENT, STEPS + 2.0),
    "gradient-ascent, free": ({**ASCENT, "is_free": True}, STEPS + 1.0),
    "word-substitution": ("word-substitution", 3.5),
    "word-substitution, floor": ({"kind": "word-substitution", "min_similarity": 0.95}, 3.5),
}
"""What perturbs the inputs, and the most that a step may cost in plain ones."""


def build(backbone, task, perturbation, method, consistency):
    """Return a run that is ready to train."""
    regularizer = {"kind": "ptp", "perturbation": perturbation, "consistency": consistency}
    recipe = {
        "backbone": {"name": "minilm"},
        "task": {"name": "custom"},
        "prompt": {"method": method},
        "regularizers": [] if perturbation is None else [regularizer],
        "training": {"steps": 100_000, "selection": "last", "num_evaluations": 1},
    }
    config = resolve(parse_run(recipe))
    model = build_model(config, backbone, task.format)
    split = EncodedSplit(task.train, tuple(map(model.readout.encode, task.train)))
    splits = {name: {"train": split, "held_out": EncodedSplit((), ())} for name in model.tracks}
    plan = build_plan(config.training, len(task.train), config.seed)
    optimizer = build_optimizer(config.training, model)
    regularizers = build_regularizers(config, backbone)
    return Member(model, optimizer, plan, splits, NoJournal(), regularizers)


def measure(backbone, members, rounds):
    """Return the seconds of each round by run, three rounds of warm-up left out."""
    times = {name: [] for name in members}
    for round_ in range(rounds + 3):
        for name, member in members.items():
            began = time.perf_counter()
            update_pack(backbone, [member])
            if round_ >= 3:
                times[name].append(time.perf_counter() - began)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="bundled/entailment")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--method", default="prompt-tuning")
    parser.add_argument("--consistency", default="ce")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    backbone = sp.load_backbone("minilm", dtype="auto")
    task = sp.load_task(options.task, data_dir=options.data_dir)
    members = {
        name: build(backbone, task, perturbation, options.method, options.consistency)
        for name, (perturbation, _) in CASES.items()
    }
    times = measure(backbone, members, options.rounds)
    rows = {}
    for name, taken in times.items():
        ratios = [a / b for a, b in zip(taken, times["plain"], strict=True)]
        limit = CASES[name][1]
        rows[name] = {
            "ratio": round(statistics.median(ratios), 3),
            "limit": limit,
            "milliseconds": round(1000 * statistics.median(taken), 1),
        }
        word = "ok" if rows[name]["ratio"] <= limit else "TOO SLOW"
        print(f"{name:25} {rows[name]['ratio']:6.3f} of at most {limit:.1f}  {word}")
    about = {
        "task": options.task,
        "method": options.method,
        "consistency": options.consistency,
        "rounds": options.rounds,
        "dtype": str(backbone.dtype),
        "threads": torch.get_num_threads(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", "unknown"),
    }
    if options.out:
        options.out.write_text(json.dumps({"about": about, "steps": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
