"""What a training step of each preset costs, as a ratio to plain rows of the same length.

    python benchmarks/presets.py [--task bundled/entailment] [--rounds 25] [--out FILE.json]

All presets train in one process and take turns, one update each per round, so that a busy machine
slows all of them alike; ratios are medians over rounds. `brute-force` is instance position with
every arrangement built in a loop, as the released code of Dynamic Prompting does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

import softprompts as sp
from softprompts.encoding.batch import collate
from softprompts.prompts import arranging
from softprompts.prompts.positions.base import anchors
from softprompts.prompts.splice import splice
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.presets import METHODS
from softprompts.recipes.resolving import resolve
from softprompts.training import forward
from softprompts.training.building import build_model, build_optimizer, build_plan
from softprompts.training.evaluation import EncodedSplit
from softprompts.training.journal import NoJournal
from softprompts.training.member import Member


def brute_force(spliced, weights, tokens, attention_mask, rows, edges):
    """Build every arrangement and mix them by their weights."""
    batch, length = rows.shape[:2]
    mixed = torch.zeros_like(spliced.embeddings)
    segments = torch.zeros_like(attention_mask)
    for split in range(length + 1):
        places = anchors(torch.full((batch,), split), length, *edges)
        arrangement = splice(tokens, attention_mask, segments, rows, places).embeddings
        mixed = mixed + weights[:, split, None, None].to(mixed.dtype) * arrangement
    return replace(spliced, embeddings=mixed)


def build(backbone, task, method):
    """Return a run that is ready to train."""
    recipe = {
        "backbone": {"name": "minilm"},
        "task": {"name": "custom"},
        "prompt": {"method": method},
        "training": {"steps": 100_000, "selection": "last", "num_evaluations": 1},
    }
    config = resolve(parse_run(recipe))
    model = build_model(config, backbone, task.format)
    rows = task.train
    split = EncodedSplit(rows, tuple(map(model.readout.encode, rows)))
    empty = EncodedSplit((), ())
    plan = build_plan(config.training, len(rows), config.seed)
    splits = {name: {"train": split, "held_out": empty} for name in model.tracks}
    optimizer = build_optimizer(config.training, model)
    return Member(model, optimizer, plan, splits, NoJournal())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="bundled/entailment")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    backbone = sp.load_backbone("minilm", dtype="auto")
    task = sp.load_task(options.task, data_dir=options.data_dir)
    members = {name: build(backbone, task, name) for name in METHODS if METHODS[name].length}
    members["brute-force"] = build(backbone, task, "adap-ins-pos")
    first = members["prompt-tuning"]
    batch = collate(next(iter(first.train.values())).encoded, backbone.tokenizer.pad_token_id)
    forward.instance_vectors(backbone, batch)  # read once, as in any run of more than one epoch
    fast = arranging.choose
    times: dict[str, list[float]] = {name: [] for name in members}
    for round_ in range(options.rounds + 3):
        for name, member in members.items():
            arranging.choose = brute_force if name == "brute-force" else fast
            began = time.perf_counter()
            parts = member.parts(backbone)
            for part, weight in parts:
                loss = part.readout.loss(forward.score(backbone, [part])[0], part.batch)
                (loss.sum() * weight).backward()
            member.update(0.0)
            if round_ >= 3:
                times[name].append(time.perf_counter() - began)
    plain = times["prompt-tuning"]
    rows = {}
    for name, taken in times.items():
        ratios = [a / b for a, b in zip(taken, plain, strict=True)]
        rows[name] = {
            "ratio": round(statistics.median(ratios), 3),
            "milliseconds": round(1000 * statistics.median(taken), 1),
        }
        print(f"{name:20} {rows[name]['ratio']:6.3f} {rows[name]['milliseconds']:8.1f} ms")
    about = {
        "task": options.task,
        "rounds": options.rounds,
        "dtype": str(backbone.dtype),
        "threads": torch.get_num_threads(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", "unknown"),
    }
    if options.out:
        options.out.write_text(json.dumps({"about": about, "presets": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
