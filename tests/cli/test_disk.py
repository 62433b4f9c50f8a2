"""Disks that are full or read-only: one line, nothing half-written, and the run can go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_material import refused, rows, tree, write_rows

from softprompts.cli.main import main
from unprivileged import unprivileged

PAGE = 4096
NUM_PAGES = 40


@contextmanager
def mounted(place: Path, option: str) -> Iterator[None]:
    """Mount a disk in memory on a folder; skips where this user cannot."""
    mount = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=600, check=False)
    except OSError as error:
        pytest.skip(f"a disk with {option} cannot be mounted: {error}")
    if done.returncode:
        pytest.skip(f"a disk with {option} cannot be mounted: {done.stderr.strip()}")
    yield
    subprocess.run(["umount", str(place)], timeout=600, check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with little room; skips where this user cannot mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, f"size={NUM_PAGES * PAGE}"):
        yield place


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """An empty folder that cannot be written, even by root; skips where that is not possible."""
    place = tmp_path / "read-only"
    place.mkdir()
    if os.geteuid() != 0:
        place.chmod(0o500)
        yield place
        place.chmod(0o700)
        return
    with mounted(place, "ro"):
        yield place


def outcome(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("prompt.safetensors", "metrics.jsonl")]


def test_a_full_disk_stops_a_run_that_goes_on_later(capsys, recipe, run, tmp_path, small_disk):
    path, out, filler = recipe(run), small_disk / "out", small_disk / "filler"
    assert main(["train", path, "--out", str(tmp_path / "whole")]) == 0
    expected = outcome(tmp_path / "whole")
    stopped_at = set()
    for num_free in range(NUM_PAGES):
        out = small_disk / f"out-{num_free}"
        room = os.statvfs(small_disk).f_bavail
        if room < NUM_PAGES // 2:
            break
        filler.write_bytes(b"x" * PAGE * (room - num_free))
        capsys.readouterr()
        code = main(["train", path, "--out", str(out)])
        captured = capsys.readouterr()
        is_stopped = code != 0
        if is_stopped:
            assert code == 2
            assert captured.out == ""
            lines = [x for x in captured.err.splitlines() if not x.startswith("estimated memory")]
            assert len(lines) == 1
            assert lines[0].startswith(f"error: {out}")
            assert lines[0].endswith(": No space left on device.")
            stopped_at.add(lines[0].split()[1].rpartition("/")[2])
            assert not (out / "result.json").exists()
        assert list(small_disk.rglob("*.part")) == []
        filler.unlink()
        assert main(["train", path, "--out", str(out), "--resume"]) == 0
        assert outcome(out) == expected
        if not is_stopped:
            break
        for file in sorted(out.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    else:
        pytest.fail("the run never had room")

    assert stopped_at >= {"config.json", "metrics.jsonl", "checkpoint.safetensors"}


@pytest.mark.slow
def test_a_limit_on_file_sizes_stops_a_run_that_goes_on_later(recipe, run, tmp_path):
    """The same without a disk of its own: works for every user."""
    path, out = recipe(run), tmp_path / "out"
    code = (
        "import resource, signal, sys; from softprompts.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        f"sys.exit(main(['train', {path!r}, '--out', {str(out)!r}]))"
    )
    done = subprocess.run(
        # -B: Python 3.11 keeps what it could write of its bytecode, and is broken from then on
        [sys.executable, "-B", "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.endswith(  # behind the line on memory
        f"error: {out / 'state' / 'checkpoint.safetensors'} could not be written: File too large.\n"
    )
    assert list(tmp_path.rglob("*.part")) == []
    assert main(["train", path, "--out", str(out), "--resume"]) == 0
    assert main(["train", path, "--out", str(tmp_path / "whole")]) == 0
    assert outcome(out) == outcome(tmp_path / "whole")


def test_a_full_disk_stops_a_study_that_goes_on_later(capsys, recipe, run, small_disk):
    del run["seed"]
    path, out = recipe({"base": run, "seeds": 2}), small_disk / "out"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * PAGE * (os.statvfs(small_disk).f_bavail - 6))

    assert main(["study", path, "--out", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: {out}")
    assert all(": No space left on device." in line for line in lines)
    assert list(small_disk.rglob("*.part")) == []
    filler.unlink()
    assert main(["study", path, "--out", str(out), "--json", "--no-report"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["num_finished"], summary["cells"][0]["num_failed"]) == (2, 0)


def test_a_read_only_folder_is_refused(capsys, recipe, run, tmp_path, read_only):
    path, out = recipe(run), tmp_path / "out"
    base = {key: value for key, value in run.items() if key != "seed"}
    study = recipe({"base": base, "seeds": 1}, "study.yaml")
    assert main(["train", path, "--out", str(out)]) == 0
    source = str(write_rows(tmp_path / "new.jsonl", rows(100, 102)))
    target = str(read_only / "g.jsonl")

    refused(capsys, ["train", path, "--out", str(read_only)], f"error: {read_only}/")
    refused(capsys, ["train", path, "--out", str(read_only / "out")], f"error: {read_only}/out")
    refused(capsys, ["study", study, "--out", str(read_only / "out")], f"error: {read_only}/out")
    arguments = ["predict", str(out), "--input", source, "--output", target]
    refused(capsys, arguments, f"error: {target} could not be written: ")
    assert tree(read_only) == {}


def test_a_folder_that_may_not_be_entered_is_refused(capsys, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    out = str(locked / "out")
    locked.chmod(0)
    try:
        with unprivileged():
            text = f"error: {out} could not be read: Permission denied"
            refused(capsys, ["study", "quickstart", "--set", "seeds=1", "--out", out], text)
            refused(capsys, ["evaluate", out], text)
            text = f"error: {out}/config.json could not be read: Permission denied"
            refused(capsys, ["train", "residual-cb", "--out", out], text)
    finally:
        locked.chmod(0o700)
    assert list(locked.iterdir()) == []
