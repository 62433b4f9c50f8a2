"""What `backbone.compile` costs and gains: updates with and without it, in turns, in one process.

    python benchmarks/compile.py [--task superglue/cb --data-dir DIR] [--threads 1 2] [--rounds 40]
                                 [--out FILE]

Inputs are read packed, as on a processor by default, and padded, as on an accelerator. Each number
of threads gets a process of its own, with no kernels kept from before: they are made for a number
of threads. An update that compiles is known by its counter; medians leave it out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "compile.json"
WAYS = {
    "packed": (False, True),
    "packed, compiled": (True, True),
    "padded": (False, False),
    "padded, compiled": (True, False),
}
"""Whether layers are compiled and inputs packed, by name; the first is what ratios are to."""


def main():
    """Measure each number of threads in a new process, and print or write what was found."""
    from turns import arguments

    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--inside", action="store_true", help="measure in this process")
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(_measure(options)))
        return
    found = []
    for threads in options.threads:
        found.append(_in_a_process(threads))
        print(json.dumps(found[-1], indent=1), flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps(found, indent=1) + "\n")


def _in_a_process(threads):
    with tempfile.TemporaryDirectory() as kernels:
        surroundings = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": kernels}
        command = [sys.executable, __file__, *sys.argv[1:], "--inside", "--threads", str(threads)]
        done = subprocess.run(
            command, env=surroundings, check=True, stdout=subprocess.PIPE, text=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def _measure(options):
    """Return figures of one number of threads, which is the last that was given."""
    import torch
    from speed.machine import describe
    from torch._dynamo.utils import counters

    import softprompts as sp
    from softprompts.training.pack import update_pack

    torch.set_num_threads(options.threads[-1])
    task = sp.load_task(options.task, data_dir=options.data_dir)
    steps = {name: _step(task, way, options, update_pack) for name, way in WAYS.items()}
    seconds = {name: [] for name in WAYS}
    is_compiling = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name, step in steps.items():
            before, began = counters["stats"]["unique_graphs"], time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
            is_compiling[name].append(counters["stats"]["unique_graphs"] > before)
    first = next(iter(WAYS))
    rows = {n: _row(s, seconds[first], is_compiling[n]) for n, s in seconds.items()}
    about = {"task": options.task, "batch_size": options.batch_size, "rounds": options.rounds}
    return {"about": {**describe(torch.bfloat16), **about}, "ways": rows}


def _step(task, way, options, update_pack):
    from turns import build

    import softprompts as sp
    from softprompts.fast import READER
    from softprompts.fast.shortcuts import Shortcuts

    is_compiled, is_packed = way
    backbone = sp.load_backbone("minilm", dtype="bfloat16", device="cpu", compile=is_compiled)
    ways = READER.ways(backbone)
    assert ways.shortcuts.joins
    if not is_packed:
        vars(ways)["shortcuts"] = Shortcuts()
    plan = {"steps": 100_000, "selection": "last", "num_evaluations": 1}
    member = build(backbone, task, training={**plan, "batch_size": options.batch_size})
    return lambda: update_pack(backbone, [member])


def _row(seconds, plain, is_compiling):
    """Return figures of one way; the plain one's rounds are what it is measured by."""
    kept = [(a, b) for a, b, skip in zip(seconds, plain, is_compiling, strict=True) if not skip]
    kept = kept[3:]  # the matrix library compiles too, for either
    update = statistics.median(a for a, _ in kept)
    ratio = statistics.median(a / b for a, b in kept)
    waited = [one for one, skip in zip(seconds, is_compiling, strict=True) if skip]
    cost = sum(waited) - len(waited) * update
    gain = statistics.median(b for _, b in kept) * (1 - ratio)
    return {
        "milliseconds": round(1000 * update, 1),
        "ratio": round(ratio, 3),
        "compile_seconds": round(cost, 1),
        "updates_that_compiled": len(waited),
        "updates_to_break_even": round(cost / gain) if waited and gain > 0 else None,
    }


if __name__ == "__main__":
    main()
