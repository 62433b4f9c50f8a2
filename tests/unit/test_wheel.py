"""The wheel has the same bytes wherever and whenever it is built."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_wheel_built_twice_has_the_same_bytes(tmp_path):
    digests, names = [], []
    for number, place in enumerate(("first", "second")):
        copy = tmp_path / place / "source"
        copy.mkdir(parents=True)
        (copy / ".ci").mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", ".ci/published.py"):
            shutil.copy(ROOT / name, copy / name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "src", copy / "src", ignore=ignored)
        for path in copy.rglob("*.py"):
            os.utime(path, (1e9 + 1e8 * number,) * 2)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        command = [
            sys.executable,
            "-m",
            "hatchling",
            "build",
            "-t",
            "wheel",
            "-d",
            str(copy.parent),
        ]
        subprocess.run(command, cwd=copy, env=environment, check=True, capture_output=True)
        (wheel,) = copy.parent.glob("*.whl")
        digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
        names = zipfile.ZipFile(wheel).namelist()
    assert digests[0] == digests[1]
    assert "softprompts/fast/kernels/kernels.cpp" in names
    assert not any("tests" in name for name in names)
