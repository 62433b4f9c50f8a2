"""What benchmarks share: runs that are ready to train, and their steps timed in turns.

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

from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.training.building import build_model, build_optimizer, build_plan
from softprompts.training.evaluation import EncodedSplit
from softprompts.training.journal import NoJournal
from softprompts.training.member import Member
from softprompts.training.regularizing import build_regularizers

WARM_UP_ROUNDS = 3


def arguments(description):
    """Return a parser of what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--task", default="bundled/entailment")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=None)
    return parser


def build(backbone, task, **sections):
    """Return a run that is ready to train, from sections of its recipe."""
    recipe = {
        "backbone": {"name": "minilm"},
        "task": {"name": "custom"},
        "training": {"steps": 100_000, "selection": "last", "num_evaluations": 1},
        **sections,
    }
    config = resolve(parse_run(recipe))
    model = build_model(config, backbone, task.format)
    split = EncodedSplit(task.train, tuple(map(model.readout.encode, task.train)))
    splits = {name: {"train": split, "held_out": EncodedSplit((), ())} for name in model.tracks}
    plan = build_plan(config.training, len(task.train), config.seed)
    optimizer = build_optimizer(config.training, model)
    regularizers = build_regularizers(config, backbone)
    return Member(model, optimizer, plan, splits, NoJournal(), regularizers)


def measure(steps, rounds):
    """Return the seconds that each step took by round, warm-up left out."""
    times = {name: [] for name in steps}
    for round_ in range(WARM_UP_ROUNDS + rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if round_ >= WARM_UP_ROUNDS:
                times[name].append(time.perf_counter() - began)
    return times


def compare(times, plain):
    """Return each step's median milliseconds, and median ratio to the plain one's rounds."""
    rows = {}
    for name, taken in times.items():
        ratios = [a / b for a, b in zip(taken, times[plain], strict=True)]
        rows[name] = {
            "ratio": round(statistics.median(ratios), 3),
            "milliseconds": round(1000 * statistics.median(taken), 1),
        }
    return rows


def write(options, backbone, **tables):
    """Write tables, and under which options and on what they were measured, to `--out` if given."""
    if options.out is None:
        return
    about = {
        **{k: v for k, v in vars(options).items() if k not in ("data_dir", "out")},
        "dtype": str(backbone.dtype),
        "threads": torch.get_num_threads(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", "unknown"),
    }
    options.out.write_text(json.dumps({"about": about, **tables}, indent=2) + "\n")
