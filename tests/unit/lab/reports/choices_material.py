"""Run folders with records of choices, written without training."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

IDENTITY = "00aa11bb22cc33dd"
PARTS = ("position", "length", "pool")


def choices_of(
    rng: random.Random, shape: tuple[int, int], parts: Sequence[str], labels: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what a record says of choices; `shape` is the prompt's length and the pool's size."""
    length, size = shape
    found: dict[str, Any] = {}
    for name in parts:
        if name == "pool":
            found["pool"] = {"weights": _weights(rng, size), "stds": _stds(rng, size)}
            if labels:
                found["pool"]["by_class"] = {label: _weights(rng, size) for label in labels}
                found["pool"]["stds_by_class"] = {label: _stds(rng, size) for label in labels}
            continue
        counts = [0] * (length + 1)
        for value in rng.choices(range(length + 1), k=16):
            counts[value] += 1
        found[name] = {"counts": counts, "entropy": rng.uniform(0, math.log(length + 1))}
    return found


def _weights(rng: random.Random, size: int) -> list[float]:
    raw = [rng.random() ** 3 for _ in range(size)]
    return [weight / sum(raw) for weight in raw]


def _stds(rng: random.Random, size: int) -> list[float]:
    return [rng.uniform(0, 0.3) for _ in range(size)]


def write_run(
    folder: Path,
    *,
    updates: int = 10,
    shape: tuple[int, int] = (4, 3),
    parts: Sequence[str] = PARTS,
    labels: Sequence[str] = ("good", "bad"),
    result: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run folder, finished unless `result` is empty; `result` overrides fields.

    There is an evaluation after every fifth part of the updates.
    """
    rng = random.Random(updates)
    folder.mkdir(parents=True, exist_ok=True)
    prompt = {"method": "adap-ins-vec-pos", "length": shape[0]}
    config = {"prompt": prompt, "task": {"name": "superglue/cb"}, "seed": 3}
    (folder / "config.json").write_text(json.dumps({"identity": IDENTITY, "config": config}))
    lines: list[dict[str, Any]] = []
    every = max(1, updates // 5)
    for step in range(1, updates + 1):
        line = {"step": step, "loss": 1.0}
        if {"position", "length"} & {*parts}:
            line["temperature"] = 0.5 ** (step / updates)
        lines.append(line | choices_of(rng, shape, parts))
        if step % every == 0:
            held = {"step": step, "split": "held_out", "score": 0.5}
            lines.append(held | choices_of(rng, shape, parts, labels))
    write_lines(folder, lines)
    if result != {}:
        content = {
            "identity": IDENTITY,
            "status": "finished",
            "split": "validation",
            "selected_step": every,
            "choices": choices_of(rng, shape, parts, labels),
            **(result or {}),
        }
        (folder / "result.json").write_text(json.dumps(content))
    return folder


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run folder."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def write_lines(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write the records of a run folder."""
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
