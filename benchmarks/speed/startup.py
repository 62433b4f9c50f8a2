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

PROGRAM = Path(__file__).parents[1] / "startup.py"
NUM_RUNS = 3


def measure(place: Workplace, scope: Scope) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield figures by task: the first run finds an empty cache, the others a filled one."""
    num_runs = 1 if scope.is_quick else NUM_RUNS
    for rows in ("bundled",) if scope.is_quick else ("cb", "rte"):
        if not scope.has(f"minilm {rows}"):
            continue
        reason = place.lacks(rows)
        found = {"skipped": reason} if reason else _measure(place, rows, num_runs)
        yield f"minilm {rows}", found


def _measure(place: Workplace, rows: str, num_runs: int) -> dict[str, Any]:
    command = [sys.executable, str(PROGRAM), "--task", TASKS[rows]]
    command += ["--threads", str(torch.get_num_threads())]
    if rows != "bundled" and place.data_dir is not None:
        command += ["--data-dir", place.data_dir]
    colds, warms = [], []
    for _ in range(num_runs):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "SOFTPROMPTS_CACHE": cache}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation has bytecode
            colds.append(_run(command, environment))
            warms.append(_run(command, environment))
    return {"cold": _medians(colds), "warm": _medians(warms), "runs": num_runs}


def _run(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"startup.py failed: {done.stderr.strip()[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {part: round(statistics.median(run[part] for run in runs), 3) for part in runs[0]}
