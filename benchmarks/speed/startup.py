"""Section `startup`: from nothing to the first update, in fresh processes, part by part."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .case import Scope, Workplace
from .material import TASKS
from .shapes import readout_of

PROGRAM = Path(__file__).parents[1] / "startup.py"
NUM_ROUNDS, WARM_PER_COLD = 3, 3
CASES = (("minilm", "cb"), ("minilm", "rte"), ("smollm2", "cb"))
BATCH_SIZES = {"minilm": 16, "smollm2": 8}
"""As in section `training`."""


def measure(place: Workplace, scope: Scope) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield figures by task: of runs that find an empty cache, and of runs that find it filled.

    Tasks take turns.
    """
    cases = (("minilm", "bundled"),) if scope.is_quick else CASES
    cases = tuple(case for case in cases if scope.has(" ".join(case)))
    runs: dict[tuple[str, str], dict[str, list[dict[str, float]]]] = {
        case: {"cold": [], "warm": []} for case in cases if not place.lacks(case[1])
    }
    for _ in range(1 if scope.is_quick else NUM_ROUNDS):
        for case, found in runs.items():
            _add_round(found, place, *case)
    for case in cases:
        if case not in runs:
            yield " ".join(case), {"skipped": place.lacks(case[1])}
            continue
        medians = {cache: _medians(found) for cache, found in runs[case].items()}
        counts = {cache: len(found) for cache, found in runs[case].items()}
        yield " ".join(case), {**medians, "runs": counts}


def _add_round(
    found: dict[str, list[dict[str, float]]], place: Workplace, model: str, rows: str
) -> None:
    """Start once with an empty cache, and some times with what that left."""
    command = [sys.executable, str(PROGRAM), "--backbone", model, "--task", TASKS[rows]]
    command += ["--readout", readout_of(model)]
    command += ["--batch-size", str(BATCH_SIZES[model])]
    command += ["--threads", str(torch.get_num_threads())]
    if rows != "bundled" and place.data_dir is not None:
        command += ["--data-dir", place.data_dir]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "SOFTPROMPTS_CACHE": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation has bytecode
        found["cold"].append(_run(command, environment))
        found["warm"] += [_run(command, environment) for _ in range(WARM_PER_COLD)]


def _run(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"startup.py failed: {done.stderr.strip()[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {part: round(statistics.median(run[part] for run in runs), 3) for part in runs[0]}
