"""Section `memory`: the peak of a training process, one process per contestant.

Each child loads what its contestant needs and no more, trains on the longest rows of the task, and
says how much it held. A high-water mark that a parent left is not its own, so it is reset.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from .case import Case, Ready, Scope, Workplace
from .shapes import readout_of

CASES = (
    Case("minilm", "cb"),
    Case("minilm", "boolq"),
    Case("bert-base", "cb"),
    Case("smollm2", "cb", batch_size=8),
)
QUICK = (Case("tiny-bert", "bundled"), Case("tiny-llama", "bundled"))
CONTESTANTS = ("softprompts", "peft, default", "peft, best", "bare loop")
NUM_UPDATES = 3
ROOT = Path(__file__).parents[1]


def measure(place: Workplace, scope: Scope) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield figures by case."""
    names = CONTESTANTS[:2] if scope.is_quick else CONTESTANTS
    for case in QUICK if scope.is_quick else CASES:
        if not scope.has(case.name):
            continue
        reason = place.lacks(case.rows)
        yield case.name, {"skipped": reason} if reason else measure_case(Ready(case, place), names)


def measure_case(ready: Ready, names: Sequence[str]) -> dict[str, Any]:
    """Return one case's figures."""
    case, lengths = ready.case, [row.num_tokens for row in ready.encoded]
    longest = sorted(range(len(lengths)), key=lambda i: -lengths[i])[: case.batch_size * 2]
    job = {
        "model": case.model,
        "folder": str(ready.folder),
        "readout": readout_of(case.model),
        "rows": case.rows,
        "data_dir": ready.place.data_dir,
        "indices": longest,
        "records": [ready.records()[i] for i in longest],
        "num_labels": None if ready.encoded[0].inputs[0].targets else ready.num_labels,
        "length": case.length,
        "batch_size": case.batch_size,
        "num_updates": NUM_UPDATES,
        "threads": torch.get_num_threads(),
        "scratch": str(ready.place.scratch / "trainer"),
    }
    found = {name: _child({**job, "contestant": name}) for name in names}
    ours = found["softprompts"]
    ratios = {
        name: {"whole": round(one["peak_bytes"] / ours["peak_bytes"], 3)}
        for name, one in found.items()
        if name != "softprompts"
    }
    return {
        "batch_size": case.batch_size,
        "longest_tokens": lengths[longest[0]] + case.length,
        "contestants": found,
        "ratios": ratios,
    }


def _child(job: dict[str, Any]) -> dict[str, int]:
    """Run one contestant in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "speed.peak"]
    done = subprocess.run(
        command, input=json.dumps(job), capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise RuntimeError(f"{job['contestant']} failed: {done.stderr.strip()[-2000:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found
