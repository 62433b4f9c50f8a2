"""A slice of `make crash`: verbs that are killed or starved, and started again, end the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_is_killed_or_starved_and_started_again_ends_the_same(tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("crash.py")), "--seed", "7"]
    command += ["--kills", "12", "--starved", "2", "--seconds", "30"]
    command += ["--cases", "train;study, packed;report;export"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "counts.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads((tmp_path / "counts.json").read_text())
    assert found["losses"] == [], done.stderr
    assert done.returncode == 0
    assert sum(one.get("equal", 0) for one in found["counts"].values()) >= 1
