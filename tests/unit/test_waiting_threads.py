"""Threads that sleep while they wait, and as many as there are cores to run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from softprompts import threads
from softprompts.threads import choose_threads, count_cores, read_quota, sleep_while_waiting

VARIABLES = (*threads._POLICIES, *threads._NUMBERS)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not imported torch, whose user has said nothing."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that whatever is set is taken back
        monkeypatch.delenv(name)


def groups(tmp_path: Path, lines: str, limits: Mapping[str, str]) -> tuple[Path, Path]:
    """Write control groups, and the file that says which are a process's."""
    for name, text in limits.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "own").write_text(lines)
    return tmp_path / "groups", tmp_path / "own"


@pytest.mark.usefixtures("fresh")
def test_threads_are_told_to_sleep():
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", threads._POLICIES)
def test_a_policy_of_the_user_stays(monkeypatch, name):
    monkeypatch.setenv(name, "active")
    sleep_while_waiting()
    assert {key: os.environ.get(key) for key in threads._POLICIES} == {
        key: "active" if key == name else None for key in threads._POLICIES
    }


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("load", "cores", "is_busy"), [(9.4, 2, True), (1.2, 2, False), (9.4, 1, False)]
)
def test_a_busy_machine_is_said_and_changes_no_number(monkeypatch, load, cores, is_busy):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(threads, "count_cores", lambda: cores)
    monkeypatch.setattr(threads, "read_quota", lambda: None)
    assert ("the machine is busy (load 9.4)" in choose_threads()) == is_busy
    assert os.environ["OMP_NUM_THREADS"] == str(cores)


@pytest.mark.usefixtures("fresh")
def test_nothing_is_set_once_torch_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", threads)
    sleep_while_waiting()
    assert choose_threads() == ""
    assert not set(VARIABLES) & set(os.environ)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", threads._NUMBERS)
def test_a_number_of_the_user_stays(monkeypatch, name):
    monkeypatch.setenv(name, "7")
    assert choose_threads() == ""
    assert {os.environ.get(key) for key in threads._NUMBERS} == {"7", None}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("cores", "quota", "number", "text"),
    [
        (1, None, "1", "threads: 1, for 1 core; "),
        (8, None, "8", "threads: 8, for 8 cores; "),
        (8, 2.5, "2", "threads: 2, for 8 cores, of which a quota leaves 2.5; "),
        (8, 0.5, "1", "threads: 1, for 8 cores, of which a quota leaves 0.5; "),
        (2, 4.0, "2", "threads: 2, for 2 cores; "),
    ],
)
def test_threads_are_the_cores_within_the_quota(monkeypatch, cores, quota, number, text):
    monkeypatch.setattr(threads, "count_cores", lambda: cores)
    monkeypatch.setattr(threads, "read_quota", lambda: quota)
    assert choose_threads() == f"{text}OMP_NUM_THREADS sets another number"
    assert os.environ["OMP_NUM_THREADS"] == number


def test_cores_are_those_that_the_process_may_run_on(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 6}, raising=False)
    for cpu, siblings in {0: "0,4", 1: "1-2", 2: "1-2", 3: "3,7"}.items():
        path = tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        path.parent.mkdir(parents=True)
        path.write_text(f"{siblings}\n")
    assert count_cores(tmp_path) == 4  # 0, both threads of 1, 3, and one that nothing is known of


def test_a_machine_without_affinity_has_all_its_cores(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert count_cores(tmp_path) == 6


@pytest.mark.parametrize(
    ("lines", "limits", "expected"),
    [
        ("", {}, None),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3.0),
        (
            "0::/a\n",
            {"a/cpu.max": "400000 100000", "cpu.max": "200000 100000"},
            2.0,
        ),
        (
            "3:cpu,cpuacct:/box\n0::/\n",
            {"cpu/box/cpu.cfs_quota_us": "50000", "cpu/box/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        (
            "1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("3:cpuset:/\n", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_the_quota_is_the_least_of_all_groups_above(tmp_path, lines, limits, expected):
    assert read_quota(*groups(tmp_path, lines, limits)) == expected


def test_torch_has_the_threads_that_were_chosen_and_they_sleep():
    code = """
import softprompts
from softprompts.threads import choose_threads, count_cores, read_quota
print(choose_threads())
import torch
print(torch.get_num_threads(), count_cores(), read_quota())
"""
    plain = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**plain, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    chosen, found = done.stdout.splitlines()[-2:]
    number = found.split()[0]
    assert chosen.startswith(f"threads: {number}, for ")
    if "GOMP_SPINCOUNT" in done.stderr:  # GNU's OpenMP, which is what torch's wheels bring on Linux
        assert "GOMP_SPINCOUNT = '0'" in done.stderr
