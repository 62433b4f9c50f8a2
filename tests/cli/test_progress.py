"""Progress on standard error: how far, how much time is left, and that it never falls silent."""

from __future__ import annotations

import io
import re
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from softprompts.cli.main import main
from softprompts.cli.progress import Bar
from softprompts.lab.studies.executors.worker import _Telling
from softprompts.lab.studies.progress import StudyBar
from softprompts.recipes.grid import Cell
from softprompts.training import member
from softprompts.training.progress import UpdateBar


class Clock:
    """Tells the seconds that it is set to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def cells(number: int, variant: str = "plain") -> list[Cell]:
    configs = [SimpleNamespace(seed=seed) for seed in range(number)]
    return [Cell(variant, {}, "cb", config, f"id-{config.seed}") for config in configs]


def result(**about: Any) -> dict[str, Any]:
    return {"status": "finished", "score": 0.5, "seconds": 10.0, **about}


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_in_python_bars_show_updates_and_runs_and_nothing_where_nobody_looks(capsys, monkeypatch):
    for bar in (UpdateBar(), StudyBar()):
        assert bar._bar.disable
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    bar = UpdateBar()
    assert capsys.readouterr().err == ""
    bar._bar.delay = 0
    for step in (1, 2, 3):
        bar.update(step, 3)
    assert "3/3" in capsys.readouterr().err
    runs, study = cells(3), StudyBar()
    study.start(runs, 1)
    study._bar.delay = 0
    study.begin(runs[1:]).update(7, 40)
    study.end(runs[1], None, "lost")
    assert study._bar.n == 2
    study.find(runs[2])
    shown = capsys.readouterr().err
    assert "plain: 7 of 40 updates" in shown
    assert "3/3" in shown


def test_runs_without_updates_count_for_the_time_left(capsys):
    clock, runs = Clock(), cells(4)
    bar = Bar(clock)
    bar.start(runs, 0)
    for run in runs[:2]:
        bar.begin([run])
        clock.now += 20
        bar.end(run, result(), "")
    assert [line.rpartition("(")[2] for line in said(capsys)] == ["60 s left)", "40 s left)"]


def test_a_line_tells_updates_runs_and_the_time_left(capsys):
    clock, runs = Clock(), cells(6)
    bar = Bar(clock)
    bar.tell()
    bar.start(runs, 0)
    bar.tell()
    updates = bar.begin(runs[:3])
    bar.tell()
    updates.update(0, 300)
    updates.update(84, 300)
    clock.now += 84
    bar.tell()
    updates.update(300, 300)
    clock.now += 216
    bar.tell()
    assert said(capsys) == [
        "getting ready",
        "[0/6] getting ready",
        "[0/6] plain, cb, seeds 0, 1, 2: getting ready",
        "[0/6] plain, cb, seeds 0, 1, 2: 84 of 300 updates (9 min left)",
        "[0/6] plain, cb, seeds 0, 1, 2: 300 of 300 updates, scoring (5 min left)",
    ]


def test_runs_that_end_count_as_they_did_in_training(capsys):
    clock, runs = Clock(), cells(4)
    bar = Bar(clock)
    bar.start(runs, 0)
    updates = bar.begin(runs[:2])
    updates.update(0, 20)
    updates.update(20, 20)
    clock.now += 40
    for cell in runs[:2]:
        bar.end(cell, result(), "")
    bar.begin(runs[2:])
    bar.tell()
    assert said(capsys) == [
        "[1/4] plain, cb, seed 0: 50.0 in 10 s (40 s left)",
        "[2/4] plain, cb, seed 1: 50.0 in 10 s (40 s left)",
        "[2/4] plain, cb, seeds 2, 3: getting ready (40 s left)",
    ]


def test_work_of_an_earlier_process_is_no_measure_of_the_pace(capsys):
    clock, runs = Clock(), cells(3)
    bar = Bar(clock)
    bar.start(runs, 1)
    updates = bar.begin(runs[1:2])
    updates.update(80, 100)
    bar.tell()
    clock.now += 10
    updates.update(90, 100)
    bar.tell()
    bar.end(runs[1], result(), "")
    assert said(capsys) == [
        "1 of 3 runs were finished before",
        "[1/3] plain, cb, seed 1: 80 of 100 updates",
        "[1/3] plain, cb, seed 1: 90 of 100 updates (2 min left)",
        "[2/3] plain, cb, seed 1: 50.0 in 10 s (50 s left)",
    ]


def test_several_packs_and_other_processes_share_a_line(capsys):
    runs = cells(3)
    bar = Bar(Clock())
    bar.start(runs, 0)
    bar.begin(runs[:1]).update(2, 50)
    bar.begin(runs[1:2]).update(1, 50)
    bar.tell()
    bar.find(runs[0])
    bar.end(runs[1], None, "no memory")
    bar.wait(1)
    bar.wait(1)
    bar.tell()
    bar.find(runs[2])
    bar.tell()
    assert said(capsys) == [
        "[0/3] plain, cb, seed 0: 2 of 50 updates | plain, cb, seed 1: 1 of 50 updates",
        "[1/3] plain, cb, seed 0: ended in another process",
        "[2/3] plain, cb, seed 1: failed: no memory (0 s left)",
        "1 run is in other processes",
        "[2/3] waiting for other processes (0 s left)",
        "[3/3] plain, cb, seed 2: ended in another process",
    ]


def test_a_terminal_shows_updates_and_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock, runs, terminal = Clock(), cells(2, "plain\x1b[3J"), Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    with Bar(clock) as bar:
        bar.start(runs, 0)
        updates = bar.begin(runs)
        updates.update(0, 10)
        clock.now += 30
        updates.update(5, 10)
        bar.tell()
        bar.end(runs[0], None, "out of \x1b[2Jmemory")
    assert "plain\\x1b[3J, cb, seeds 0, 1: 5 of 10 updates" in terminal.getvalue()
    assert "[1/2] plain\\x1b[3J, cb, seed 0: failed: out of \\x1b[2Jmemory" in terminal.getvalue()
    assert "30 s left" in terminal.getvalue()


def test_a_worker_tells_its_last_update_however_soon(monkeypatch):
    events: list[Any] = []
    updates = _Telling(events.append).begin(cells(1))
    monkeypatch.setattr("softprompts.lab.studies.executors.worker.time.monotonic", lambda: 1.0)
    for step in range(1, 5):
        updates.update(step, 4)
    assert events == [("begin", ("id-0",)), ("update", 1, 4), ("update", 4, 4)]


class Heard(io.StringIO):
    """Keeps what is written, and notes when it says how many updates are done."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def write(self, text: str) -> int:
        if " updates" in text:
            self.told.set()
        return super().write(text)


@pytest.mark.parametrize("verb", ["train", "study"])
def test_a_line_tells_where_a_verb_is_while_it_scores(recipe, run, tmp_path, monkeypatch, verb):
    """Scoring goes on only once a line was seen that says how many updates are done."""
    heard, real = Heard(), member.evaluate_tasks

    def patient(*args: Any, **options: Any) -> Any:
        assert heard.told.wait(600)
        return real(*args, **options)

    more = []
    if verb == "study":
        del run["seed"]
        run, more = {"base": run, "seeds": 3, "pack_size": 3}, ["--no-report"]
    monkeypatch.setattr("softprompts.cli.progress.LINE_SECONDS", 0.01)
    monkeypatch.setattr(member, "evaluate_tasks", patient)
    monkeypatch.setattr(sys, "stderr", heard)
    assert main([verb, recipe(run), "--out", str(tmp_path / "out"), *more]) == 0
    expected = {
        "train": r"\[0/1\] prompt-tuning, files, seed 3: 1 of 6 updates",
        "study": r"\[0/3\] base, files, seeds 0, 1, 2: 3 of 18 updates",
    }
    line = next(line for line in heard.getvalue().splitlines() if " updates" in line)
    assert re.match(expected[verb], line), line
