"""A run that is killed, at any moment, and started again ends as if nothing had happened."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_material import asking, rows, write_rows

from softprompts.cli.main import main
from softprompts.errors import RunFolderError
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.training.execution import describe_run, execute
from softprompts.training.journal import RunFolder
from softprompts.training.progress import Progress
from softprompts.training.resources import Resources

TIMES = {"seconds", "examples_per_second", "peak_bytes"}
KILLS = {"adamw": 16, "adafactor": 12}

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Send a request to a process that forks a child per start; see `kill_server.py`."""
    with asking("kill_server.py") as request:
        yield lambda config, folder, **kill: request(
            {"config": config, "folder": str(folder), **kill}
        )


@pytest.fixture(scope="module")
def config(
    backbone_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """Return a function from an optimizer to a run with dropout, accumulation and selection."""
    data = tmp_path_factory.mktemp("data")
    write_rows(data / "train.jsonl", rows(0, 20))
    write_rows(data / "val.jsonl", rows(50, 56))
    options = {"train": "train.jsonl", "validation": "val.jsonl", "template": "{text}"}
    residual = {"kind": "residual", "bottleneck": 6, "dropout": 0.3}

    def make(optimizer: str, steps: int = 12) -> dict[str, Any]:
        return {
            "backbone": {"name": str(backbone_folder("bert"))},
            "task": {"name": "files", "data_dir": str(data), "options": options},
            "prompt": {"method": "residual", "length": 3, "rows": residual},
            "training": {
                "optimizer": optimizer,
                "learning_rate": 0.05,
                "schedule": {"kind": "linear", "warmup_steps": 1},
                "batch_size": 3,
                "accumulation_steps": 2,
                "steps": steps,
                "num_evaluations": 4,
                "checkpoint_every_steps": 2,
            },
            "seed": 5,
        }

    return make


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    """Return what must be equal: the prompt's bytes, the lines of metrics, the result."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    kept = {key: value for key, value in result.items() if key not in TIMES}
    return (folder / "prompt.safetensors").read_bytes(), lines, kept


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.part")]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_run_killed_at_random_moments_ends_as_if_undisturbed(ask, config, tmp_path, optimizer):
    recipe = config(optimizer)
    assert ask(recipe, tmp_path / "whole")["exit_code"] == 0
    expected = outcome(tmp_path / "whole")
    began = time.perf_counter()
    ask(recipe, tmp_path / "again")
    per_update = (time.perf_counter() - began) / 14
    assert outcome(tmp_path / "again") == expected
    draws = random.Random(f"kills of {optimizer}")
    assert len(expected[1]) == 12 + 4

    num_kills = num_kept = sitting = 0
    while num_kills < KILLS[optimizer]:
        sitting += 1
        folder = tmp_path / f"killed-{sitting}"
        is_over = False
        while not is_over:
            moment = [draws.randrange(6), draws.uniform(0, 2 * per_update)]
            answer = ask(recipe, folder, kill_after=moment)
            is_over = not answer["is_killed"] or (folder / "result.json").exists()
            num_kills += not is_over
            num_kept += not is_over and (folder / "state" / "checkpoint.safetensors").exists()
        last = ask(recipe, folder)
        assert last["exit_code"] == 0
        assert outcome(folder) == expected
        assert leftovers(folder) == []

    assert num_kept >= KILLS[optimizer] // 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "moments"), [("adamw", (False, True)), ("adafactor", (True,))]
)
def test_a_run_killed_at_every_change_of_a_file_ends_as_if_undisturbed(
    ask, config, tmp_path, optimizer, moments
):
    recipe = config(optimizer, steps=4)
    whole = ask(recipe, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    # config 2, two checkpoints with their metrics 2 x 3, last metrics 1, prompt 2, result 2
    assert whole["num_calls"] == 13

    for call in range(1, whole["num_calls"] + 1):
        for is_after in moments:
            folder = tmp_path / f"killed-{call}-{is_after}"
            first = ask(recipe, folder, kill_at=[call, is_after])
            assert first["is_killed"], (call, is_after)
            again = ask(recipe, folder, kill_at=[1 + call % 3, is_after])
            assert again["is_killed"] or (call, is_after) == (13, True)
            last = ask(recipe, folder)
            assert last["exit_code"] == 0, (call, is_after)
            assert outcome(folder) == expected, (call, is_after)
            assert leftovers(folder) == []


@pytest.mark.slow
def test_a_kill_while_metrics_are_taken_back_is_survived(ask, config, tmp_path):
    recipe = config("adamw", steps=4)
    ask(recipe, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    # change 7 writes the second checkpoint; at the restart, 1 removes its part, 2 cuts the lines
    for is_after in (False, True):
        folder = tmp_path / f"killed-{is_after}"
        assert ask(recipe, folder, kill_at=[7, False])["is_killed"]
        lines = (folder / "metrics.jsonl").stat().st_size
        assert ask(recipe, folder, kill_at=[2, is_after])["is_killed"]
        assert ((folder / "metrics.jsonl").stat().st_size < lines) == is_after
        assert ask(recipe, folder)["exit_code"] == 0
        assert outcome(folder) == expected


@pytest.mark.slow
def test_the_command_killed_and_given_again_goes_on(ask, config, tmp_path):
    content, recipe = config("adamw", steps=120), tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(content))  # JSON is YAML
    script = Path(sys.executable).with_name("softprompts")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    folder = tmp_path / "killed"
    command = [str(script), "train", str(recipe), "--out", str(folder), "--resume", "--json"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        checkpoint = folder / "state" / "checkpoint.safetensors"
        deadline = time.monotonic() + 600
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert checkpoint.exists()
    assert not (folder / "result.json").exists()

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert ask(content, tmp_path / "whole")["exit_code"] == 0
    assert outcome(folder) == outcome(tmp_path / "whole")


class Meddler(Progress):
    """Tries to use the folder of the run that tells it of its updates."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.refusals: list[str] = []

    def update(self, step: int, total_steps: int) -> None:
        with pytest.raises(RunFolderError, match=f"{self.folder} is in use") as caught:
            RunFolder(self.folder, self.about)
        self.refusals.append(str(caught.value))


def test_a_second_user_of_a_run_folder_is_refused(config, tmp_path):
    run = parse_run(config("adamw", steps=2))
    resources = Resources()
    backbone, task = resources.backbone(run.backbone), resources.task(run.task, run.seed)
    folder = tmp_path / "run"
    meddler = Meddler(folder, describe_run(resolve(run), backbone, task))
    execute(run, backbone, task, folder=folder, progress=meddler)

    assert len(meddler.refusals) == 2
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"


def test_a_lock_that_another_has_is_refused(capsys, config, tmp_path):
    """A lock is of an open file: it is no other whether this process or another holds it."""
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(json.dumps(config("adamw", steps=2)))
    out.mkdir()
    with open(out / ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["train", str(recipe), "--out", str(out)]) == 2
    assert capsys.readouterr().err.endswith(f"error: {out} is in use by another process.\n")
    assert os.listdir(out) == [".lock"]
