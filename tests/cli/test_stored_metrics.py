"""`--tracker` with W&B and MLflow themselves: what they have stored is what the folder says."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_material import interrupted

from softprompts.cli.main import main
from softprompts.lab.tracking import journal
from softprompts.lab.tracking.base import TrackedRun
from softprompts.lab.tracking.journal import flatten, numbers

pytestmark = [
    pytest.mark.slow,
    # SQLAlchemy 2.1 says so of a mapping that MLflow makes
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

ENDS = {"wandb": {False: "1", True: "0"}, "mlflow": {False: "KILLED", True: "FINISHED"}}
"""What stands there of a run without a result, and of one with it."""


@dataclass
class Stored:
    """A run as its tracker has it.

    Attributes:
        project: what its study is called.
        settings: its parameters.
        metrics: steps and values by name, in the order of writing.
        end: how it ended.
    """

    project: str
    settings: dict[str, Any]
    metrics: dict[str, list[tuple[int, float]]]
    end: str


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No tracker has failed yet, and none asks for another machine."""
    monkeypatch.setattr(journal, "_failed", set())
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("WANDB_CONSOLE", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    asked, connect = [], socket.socket.connect

    def watched(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            asked.append(address)
            raise OSError(f"no network in tests: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    yield
    assert asked == []


def read_mlflow(folder: Path) -> dict[str, Stored]:
    """Read all runs of a store by name."""
    from mlflow import MlflowClient

    client, found = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}"), {}
    for place in client.search_experiments():
        for run in client.search_runs([place.experiment_id]):
            metrics = {
                name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
            assert run.info.run_name not in found, "a run is there twice"
            found[run.info.run_name] = Stored(place.name, run.data.params, metrics, run.info.status)
    return found


def records(path: Path) -> Iterator[Any]:
    """Read a file of an offline run of W&B: a log as LevelDB has them, of protocol buffers.

    After 7 bytes come blocks of 32 KiB with records, each a checksum (4 bytes), a length (2), a
    kind (1: whole; 2, 3, 4: first, middle, last part) and its bytes.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def read_wandb(folder: Path) -> dict[str, Stored]:
    """Read all runs of a folder by name; a run has a file of each process that had it."""
    import wandb

    wandb.teardown()  # its own process writes a little later
    found: dict[str, Stored] = {}
    keys: dict[str, str] = {}
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        one = Stored("", {}, {}, "")
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                about = record.run
                one = found.setdefault(about.display_name, one)
                assert keys.setdefault(about.display_name, about.run_id) == about.run_id
                one.project = about.project
                settings = {i.key: json.loads(i.value_json) for i in about.config.update}
                one.settings |= {k: v for k, v in settings.items() if k != "_wandb"}
            elif kind == "history":
                for item in record.history.item:
                    name = item.key or "/".join(item.nested_key)
                    if not name.startswith("_"):
                        line = (record.history.step.num, json.loads(item.value_json))
                        one.metrics.setdefault(name, []).append(line)
            elif kind == "exit":
                one.end = str(record.exit.exit_code)
    return found


READERS: dict[str, Callable[[Path], dict[str, Stored]]] = {
    "wandb": read_wandb,
    "mlflow": read_mlflow,
}


@pytest.fixture(params=list(READERS))
def name(request: pytest.FixtureRequest) -> str:
    """A tracker that is installed."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    if request.param == "mlflow":
        pytest.importorskip("sqlalchemy", reason="MLflow has no local store without sqlalchemy")
    return str(request.param)


def expected(run: Path, name: str, project: str) -> Stored:
    """Return what a tracker must have of a finished run, read from its folder."""
    config = json.loads((run / "config.json").read_text())
    settings: dict[str, Any] = {**flatten(config["config"]), "identity": config["identity"]}
    if name == "mlflow":
        settings = {key: str(value) for key, value in settings.items()}
    metrics: dict[str, list[tuple[int, float]]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for key, value in numbers(record).items():
            metrics.setdefault(key, []).append((record["step"], value))
    result = json.loads((run / "result.json").read_text())
    for key in ("score", "last_score", "majority"):
        metrics[f"{result['split']}/{key}"] = [(result["steps"], result[key])]
    return Stored(project, settings, metrics, ENDS[name][True])


def test_a_run_is_stored_as_in_its_folder(recipe, run, tmp_path, name, capsys):
    out = tmp_path / "out"
    assert main(["train", recipe(run), "--out", str(out), "--tracker", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "finished"
    found = READERS[name](out / "tracking")
    assert found == {"prompt-tuning/files/seed-3": expected(out, name, "softprompts")}
    (one,) = found.values()
    assert len(one.metrics["loss"]) == 6
    assert one.settings["training.steps"] == (6 if name == "wandb" else "6")


@pytest.mark.parametrize("stop", [2, 5])
def test_a_run_that_goes_on_is_stored_once(recipe, run, tmp_path, name, stop):
    """Interrupted behind a checkpoint, so that updates are done again."""
    run["training"]["checkpoint_every_steps"] = 4
    out = tmp_path / "out"
    arguments = ["train", recipe(run), "--out", str(out), "--tracker", name]
    assert interrupted(arguments, stop) == 130
    (early,) = READERS[name](out / "tracking").values()
    steps = [step for step, _ in early.metrics.get("loss", [])]
    assert steps == ([1, 2, 3, 4] if stop > 4 else []), "what is durable"
    assert early.end == ENDS[name][False]
    assert main([*arguments, "--resume"]) == 0
    found = READERS[name](out / "tracking")
    assert found == {"prompt-tuning/files/seed-3": expected(out, name, "softprompts")}


def test_runs_of_a_pack_are_stored_apart_and_once(recipe, run, tmp_path, name):
    del run["seed"]
    run["training"]["checkpoint_every_steps"] = 4
    study = {"name": "tracked", "base": run, "seeds": 2, "pack_size": 2}
    out = tmp_path / "out"
    arguments = ["study", recipe(study), "--out", str(out), "--tracker", name, "--no-report"]
    assert interrupted(arguments, 9) == 130  # the fifth update of the first run
    early = READERS[name](out / "tracking")
    assert [one.end for one in early.values()] == [ENDS[name][False]] * 2
    assert main(arguments) == 0
    found = READERS[name](out / "tracking")
    assert set(found) == {"base/files/seed-0", "base/files/seed-1"}
    for key, one in found.items():
        assert one.settings["seed"] == type(one.settings["seed"])(key[-1])
        assert one == expected(out / "runs" / one.settings["identity"], name, "tracked")


def test_wandb_is_not_sent_what_a_process_prints(tmp_path):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    from softprompts.lab.tracking.wandb import WeightsAndBiases

    tracker = WeightsAndBiases()
    tracker.start(TrackedRun("quiet", "one", tmp_path, {}, ""))
    print("of all runs")
    tracker.finish(True)
    wandb.teardown()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    kinds = {record.WhichOneof("record_type") for record in records(path)}
    assert "exit" in kinds
    assert not kinds & {"output", "output_raw"}


START = """
import sys, time
from pathlib import Path
from softprompts.lab.tracking.base import TrackedRun
from softprompts.lab.tracking.mlflow import MLflow
import mlflow, sqlalchemy, alembic
folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / f"{name}.ready").touch()
while len(list(folder.glob("*.ready"))) < 2:
    time.sleep(0.005)
tracker = MLflow()
tracker.start(TrackedRun("side by side", name, folder, {"a": 1}, ""))
tracker.log([(1, {"loss": 0.5})])
tracker.finish(True)
"""


@pytest.fixture
def needs_mlflow() -> None:
    """MLflow is installed, with what a local store needs."""
    for package in ("mlflow", "sqlalchemy"):
        pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.mark.usefixtures("needs_mlflow")
def test_processes_that_make_a_store_side_by_side_share_it(tmp_path):
    names = ["one", "two"]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(tmp_path), name], stderr=subprocess.PIPE, text=True
        )
        for name in names
    ]
    errors = [process.communicate(timeout=600)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    found = read_mlflow(tmp_path)
    assert set(found) == set(names)
    for one in found.values():
        assert one == Stored("side by side", {"a": "1"}, {"loss": [(1, 0.5)]}, "FINISHED")


@pytest.mark.usefixtures("needs_mlflow")
def test_mlflow_takes_a_store_elsewhere_a_program_s_own_run_and_odd_names(tmp_path, monkeypatch):
    import mlflow

    from softprompts.lab.tracking.mlflow import MLflow

    place = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    mlflow.set_experiment("theirs")
    with mlflow.start_run(run_name="own") as own:
        run = TrackedRun("ours", "a/b", tmp_path / "absent", {"labels.no way!": "x"}, "")
        tracker = MLflow()
        key = tracker.start(run)
        assert os.environ.pop("MLFLOW_DISABLE_TELEMETRY") == "true"
        tracker.log([(1, {"tasks/wh?/loss": 0.25, "loss": 1.0}), (2, {"loss": 0.5})])
        assert mlflow.active_run().info.run_id == own.info.run_id
        tracker.finish(True)
        assert mlflow.active_run().info.run_id == own.info.run_id
    assert key != own.info.run_id
    assert not run.folder.exists()
    found = read_mlflow(tmp_path)
    metrics = {"tasks/wh-/loss": [(1, 0.25)], "loss": [(1, 1.0), (2, 0.5)]}
    assert found["a/b"] == Stored("ours", {"labels.no way-": "x"}, metrics, "FINISHED")
    assert found["own"].metrics == {}

    # another process makes the experiment between a look and the attempt
    real, looks = mlflow.MlflowClient.get_experiment_by_name, []

    def late(self: Any, name: str) -> Any:
        looks.append(name)
        return real(self, name) if len(looks) > 1 else None

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", late)
    MLflow().start(TrackedRun("ours", "c", tmp_path / "absent", {}, ""))
    assert looks == ["ours", "ours"]
    assert read_mlflow(tmp_path)["c"].project == "ours"
