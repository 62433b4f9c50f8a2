"""How many runs one accelerator trains side by side: packs of runs on T5-base and T5-large shapes.

    python benchmarks/gpu.py [--device cuda] [--shapes t5-base t5-large] [--runs 1 2 4 8 16 32]
                             [--tokens 128] [--batch-size 8] [--rounds 10] [--tiny] [--out FILE]

Weights are random, rows are made of the bundled task's words, and all have the same length, so that
nothing is padding. Each size is measured with and without `backbone.compile`. `--tiny`
runs the same code on a processor in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "gpu.json"
SIZES = (1, 2, 4, 8, 16, 32)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write; every point is written as soon as it is there."""
    options = _parse(arguments)
    os.environ["SOFTPROMPTS_CACHE"] = "off"
    import torch
    from speed.machine import describe, matrix_rate

    dtype = torch.bfloat16
    found: dict[str, Any] = {
        "about": {**describe(dtype, options.device), "is_tiny": options.tiny},
        "matrix_gflops": round(_rate(matrix_rate, dtype, options) / 1e9, 1),
        "points": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for shape in options.shapes:
            for point in _points(shape, Path(scratch), options):
                point["limit_share"] = round(point.pop("flops") / found["matrix_gflops"] / 1e9, 4)
                found["points"].append(point)
                print(json.dumps(point), flush=True)
                options.out.write_text(json.dumps(found, indent=1) + "\n")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", nargs="+", default=["t5-base", "t5-large"])
    parser.add_argument("--runs", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.tiny:
        options.device, options.shapes, options.runs = "cpu", ["tiny-t5"], [1, 2]
        options.tokens, options.batch_size, options.rounds = 24, 2, 1
    return options


def _rate(matrix_rate: Any, dtype: Any, options: argparse.Namespace) -> float:
    size = 256 if options.tiny else 8192
    rate: float = matrix_rate(dtype, options.device, size=size)
    return rate


def _points(shape: str, scratch: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield figures by number of runs, first as it is, then compiled."""
    from speed.contestants import Ours, build_member
    from speed.material import load_rows, long_rows
    from speed.shapes import find_model, layer_parameters, readout_of

    import softprompts as sp
    from softprompts.fast import compiling

    if options.tiny:
        compiling.BACKEND = "eager"  # traces only
    rows = long_rows(load_rows("bundled", None), options.tokens, 16 * options.batch_size)
    folder = find_model(shape, rows.texts, scratch / shape)
    for is_compiled in (False, True):
        backbone = sp.load_backbone(
            str(folder), dtype="bfloat16", device=options.device, compile=is_compiled
        )
        for count in options.runs:
            members = [
                build_member(
                    backbone,
                    (rows.task.format, rows.examples),
                    readout=readout_of(shape),
                    batch_size=options.batch_size,
                    max_tokens=options.tokens,
                    seed=seed,
                )
                for seed in range(count)
            ]
            operations = 4 * layer_parameters(backbone)
            point = {"shape": shape, "runs": count, "is_compiled": is_compiled}
            yield {**point, **_measure(Ours(backbone, members), operations, options)}


def _measure(ours: Any, operations: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return speed and peak memory of a pack, or that it did not fit."""
    import torch

    is_gpu = options.device != "cpu"
    try:
        for _ in range(3):
            ours.step()
        if is_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began, tokens = time.perf_counter(), 0
        for _ in range(options.rounds):
            tokens += ours.step()
        if is_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    except torch.cuda.OutOfMemoryError:
        return {"flops": 0.0, "reason": "does not fit into memory"}
    rate = options.rounds / seconds
    return {
        "updates_per_second_and_run": round(rate, 3),
        "updates_per_second": round(rate * len(ours.members), 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_bytes": torch.cuda.max_memory_allocated() if is_gpu else None,
        "flops": operations * tokens / seconds,
    }


if __name__ == "__main__":
    main()
