"""`softprompts study --executor`: whoever trains the packs, or dies, the study is the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_material import files_task, rows, write_rows

from softprompts.cli.main import main
from softprompts.errors import ExecutorError, SoftPromptsWarning
from softprompts.lab.studies.executors.base import Work
from softprompts.lab.studies.executors.ledger import Ledger
from softprompts.lab.studies.executors.per_device import PerDevice
from softprompts.lab.studies.executors.registry import EXECUTORS, build_executor
from softprompts.lab.studies.planning import Pack
from softprompts.lab.studies.progress import StudyProgress
from softprompts.lab.studies.store import Store
from softprompts.recipes.grid import expand
from softprompts.recipes.loading import load_recipe
from softprompts.training.progress import Silent
from softprompts.training.resources import Resources

TIMES = {"seconds", "examples_per_second", "peak_bytes"}
WAYS: dict[str, list[str]] = {"per-device": ["--devices", "cpu,cpu"], "ray": []}
"""How each executor is told to use two workers of this machine."""

CASES = [name for name in EXECUTORS.names() if name != "in-process"]


@pytest.fixture(scope="module")
def recipe(backbone_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four runs in two packs, some seconds each."""
    folder = tmp_path_factory.mktemp("executors")
    write_rows(folder / "data" / "train.jsonl", rows(0, 24))
    write_rows(folder / "data" / "val.jsonl", rows(100, 110))
    training = {"batch_size": 8, "steps": 200, "num_evaluations": 4, "checkpoint_every_steps": 5}
    study = {
        "name": "shared-out",
        "base": {
            "backbone": {"name": str(backbone_folder("bert"))},
            "task": files_task(folder / "data"),
            "prompt": {"method": "prompt-tuning", "length": 4},
            "training": training,
        },
        "variants": {"plain": {}, "residual": {"prompt.method": "residual"}},
        "seeds": 2,
    }
    path = folder / "shared-out.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return str(path)


@pytest.fixture(scope="module")
def expected(recipe: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process makes of the study."""
    out = tmp_path_factory.mktemp("whole") / "out"
    started = Started([recipe, "--out", str(out)])
    assert started.end() == 0, started.errors
    return outcome(out)


def outcome(out: Path) -> dict[str, Any]:
    """Return all that must be equal of a study's folder: every file, times aside."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(out)), path.read_bytes()
        if path.name in ("result.json", "summary.json"):
            data = json.loads(content)
            for line in data.get("cells", [data]):
                for key in TIMES & set(line):
                    del line[key]
            found[name] = data
        else:
            found[name] = content
    return found


class Started:
    """A study in a process group of its own."""

    def __init__(self, arguments: Sequence[str]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        verb = ["study", "--no-report", *arguments]  # a report shows times
        self.process = subprocess.Popen(
            [sys.executable, "-m", "softprompts.cli.main", *verb],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a terminal
        )
        self.errors = ""

    def end(self) -> int:
        """Wait for its end and return the exit code."""
        _, self.errors = self.process.communicate(timeout=600)
        return self.process.returncode

    def descendants(self) -> list[int]:
        """Return the processes that it has started, and those that they have."""
        return below(self.process.pid)

    def workers(self, out: Path) -> list[int]:
        """Return those of them that are training a pack."""
        return holders(out, self.process.pid)

    def wait_for_updates(self, out: Path) -> None:
        """Wait until runs have got on that are not finished, and a state is kept."""
        before, began = written(out), time.monotonic()
        while written(out) == before or not any(out.rglob("checkpoint.safetensors")):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() - began < 600
            time.sleep(0.02)


def below(root: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    parents = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(stat[1])

    def is_below(pid: int) -> bool:
        while pid in parents and pid != root:
            pid = parents[pid]
        return pid == root

    return [pid for pid in parents if pid != root and is_below(pid)]


def holders(out: Path, root: int) -> list[int]:
    """Return the processes below one that hold the lock of a pack: they are training it."""
    found = []
    for pid in below(root):
        with suppress(OSError):
            held = [os.readlink(place) for place in Path(f"/proc/{pid}/fd").iterdir()]
            if any(name.startswith(f"{out}/packs/") for name in held):
                found.append(pid)
    return found


def written(out: Path) -> list[int]:
    """Return the sizes of metrics of runs that are not finished."""
    files = sorted(out.glob("runs/*/metrics.jsonl"))
    return [f.stat().st_size for f in files if not (f.parent / "result.json").exists()]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_study_with_a_worker_killed_is_the_one_of_a_single_process(
    name, recipe, expected, tmp_path
):
    if name == "ray":
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    out = tmp_path / "out"
    started = Started([recipe, "--out", str(out), "--executor", name, *WAYS[name]])
    started.wait_for_updates(out)
    workers = started.workers(out)
    assert workers, "no worker is in training"
    os.kill(workers[-1], signal.SIGKILL)
    assert started.end() == 0, started.errors
    said = "was killed by signal 9" if name == "per-device" else "died"
    assert f"warning: a worker {said} with 2 runs in training" in started.errors
    assert "(attempt 2 of 3)" in started.errors
    ended = re.compile(r"^\[(\d/4)\] .*: [\d.]+ in \d+ s", re.MULTILINE)
    assert ended.findall(started.errors) == [f"{number}/4" for number in range(1, 5)]
    assert outcome(out) == expected
    assert not started.descendants()


@pytest.mark.slow
def test_a_study_with_a_node_removed_is_the_one_of_a_single_process(
    recipe, expected, tmp_path, monkeypatch
):
    """The head has no processor to give; each of two nodes has one, and one that trains goes."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ray.cluster_utils import Cluster

    for name, value in (("OMP_NUM_THREADS", "1"), ("TOKENIZERS_PARALLELISM", "false")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    out = tmp_path / "out"
    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = {node: raylet(node) for node in [cluster.add_node(), cluster.add_node()]}
        address = ["--executor", "ray", "--address", cluster.address]
        started = Started([recipe, "--out", str(out), *address])
        started.wait_for_updates(out)
        node, worker = halt_in_mid_pack(out, nodes)
        cluster.remove_node(node, allow_graceful=False)  # so all is left to the other
        os.kill(worker, signal.SIGKILL)  # as its machine would
        assert started.end() == 0, started.errors
    finally:
        cluster.shutdown()
    assert "warning: a worker died with 2 runs in training" in started.errors
    assert "(attempt 2 of 3)" in started.errors
    ended = re.compile(r"^\[(\d/4)\] .*: [\d.]+ in \d+ s", re.MULTILINE)
    assert ended.findall(started.errors) == [f"{number}/4" for number in range(1, 5)]
    assert outcome(out) == expected


@pytest.mark.slow
def test_questions_that_a_killed_study_left_to_nodes_are_removed(tmp_path):
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from softprompts.lab.studies.executors import ray_cluster

    old, new = tmp_path / ".probe.1.part", tmp_path / ".probe.2.part"
    for file in (old, new):
        file.write_text("{}")
    os.utime(old, (0, 0))
    ray_cluster._connect(None)
    try:
        ray_cluster._probe(tmp_path)
    finally:
        ray.shutdown()
    assert list(tmp_path.iterdir()) == [new]


def halt_in_mid_pack(out: Path, nodes: dict[Any, int]) -> tuple[Any, int]:
    """Halt a worker that is training a pack, and return its node and itself."""
    began = time.monotonic()
    while time.monotonic() - began < 600:
        for node, pid in nodes.items():
            for worker in holders(out, pid):
                os.kill(worker, signal.SIGSTOP)
                if worker in holders(out, pid):
                    return node, worker
                os.kill(worker, signal.SIGCONT)  # it had just finished
        time.sleep(0.02)
    raise AssertionError("no worker of a node is in training")


def raylet(node: Any) -> int:
    """Return the process of a node of Ray that starts its workers."""
    (found,) = node.all_processes["raylet"]
    return int(found.process.pid)


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_the_study_goes_on_elsewhere(recipe, expected, tmp_path):
    out = tmp_path / "out"
    started = Started([recipe, "--out", str(out), "--executor", "per-device", "--devices", "cpu"])
    started.wait_for_updates(out)
    workers = started.workers(out)
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.end() == 130
    lines = [line for line in started.errors.splitlines() if not line.startswith("[")]
    assert lines[-1] == "interrupted"
    assert workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert list(out.rglob("checkpoint.safetensors"))
    again = Started([recipe, "--out", str(out)])
    assert again.end() == 0, again.errors
    assert outcome(out) == expected


@dataclass
class Heard(StudyProgress):
    """Keeps what it is told."""

    ends: list[tuple[int, str]] = field(default_factory=list)
    finds: list[int] = field(default_factory=list)

    def start(self, cells: Any, num_finished: int) -> None: ...

    def begin(self, cells: Any) -> Any:
        return Silent()

    def end(self, cell: Any, result: Any, error: str) -> None:
        self.ends.append((cell.config.seed, error))

    def find(self, cell: Any) -> None:
        self.finds.append(cell.config.seed)

    def wait(self, num_runs: int) -> None: ...


@pytest.fixture
def work(recipe: str, tmp_path: Path) -> Work:
    """One pack of two runs, of which nothing is done."""
    study: Any = load_recipe(recipe, ["variants={plain: {}}"])
    cells = expand(study)
    store = Store(tmp_path / "out", study, cells)
    store.open()
    pack = Pack(tuple(cell.identity for cell in cells))
    return Work(store, cells, [pack], Resources(), Heard())


def test_a_pack_whose_workers_keep_dying_is_kept_as_failed(work):
    ledger, (pack,) = Ledger(work), work.packs
    for attempt in (2, 3):
        assert ledger.take() is pack
        assert ledger.take() is None
        with pytest.warns(
            SoftPromptsWarning, match=rf"left with exit code 7.*attempt {attempt} of 3"
        ):
            ledger.lose(pack, "left with exit code 7")
    assert ledger.take() is pack
    ledger.lose(pack, "left with exit code 7")
    reason = "its worker died 3 times; the last one left with exit code 7."
    assert work.progress.ends == [(0, reason), (1, reason)]
    assert ledger.packs == ()
    (line,) = work.store.write_summary()["cells"]
    assert (line["num_failed"], line["errors"]) == (2, [reason])


def test_what_a_worker_could_not_tell_before_it_died_is_found(work, monkeypatch):
    ledger, (pack,) = Ledger(work), work.packs
    ledger.take()
    done = {pack.runs[0]}
    monkeypatch.setattr(Store, "result", lambda self, cell: {} if cell.identity in done else None)
    with pytest.warns(SoftPromptsWarning, match="with 1 run in training"):
        ledger.lose(pack, "died")
    assert work.progress.finds == [0]
    assert ledger.order(pack).left == pack.runs[1:]


def test_a_pack_that_another_process_has_waits(work):
    ledger, (pack,) = Ledger(work), work.packs
    ledger.take()
    assert ledger.hear(pack, ("leave", False))
    assert ledger.packs == (pack,)
    assert ledger.take() is None, "it is not asked for again at once"


def test_an_error_of_a_worker_ends_the_study(work):
    ledger, (pack,) = Ledger(work), work.packs
    with pytest.raises(ExecutorError, match="disk is full"):
        ledger.hear(pack, ("raise", "disk is full", True))
    with pytest.raises(RuntimeError, match="a fault"):
        ledger.hear(pack, ("raise", "a fault", False))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--executor", "rai"],
            "executor must be one of in-process, per-device, ray, but is 'rai'",
        ),
        (["--devices", "cpu"], "`--devices` must be left out with executor in-process"),
        (
            ["--executor", "per-device", "--address", "x"],
            "`--address` must be left out with executor per-device, which takes none, but is 'x'",
        ),
        (
            ["--executor", "per-device", "--devices", "gpu:0"],
            "device must be usable by torch, but is 'gpu:0'",
        ),
        (
            ["--executor", "per-device", "--devices", "cpu,meta"],
            "`--devices` must be of one type, since packs are made for it, but is 'cpu,meta'",
        ),
        (
            ["--executor", "per-device", "--devices", "meta,meta"],
            "`--devices` must name an accelerator once at most, but is 'meta,meta'",
        ),
        (
            ["--executor", "per-device", "--set", "base.backbone.device=cpu"],
            "`backbone.device` must be auto with executor per-device",
        ),
        (
            ["--executor", "per-device", "--set", "base.backbone.device_map=auto"],
            "`backbone.device_map` must be null with executor per-device",
        ),
    ],
)
def test_what_an_executor_cannot_do_is_refused(recipe, tmp_path, capsys, arguments, text):
    out = tmp_path / "out"
    assert main(["study", recipe, "--out", str(out), *arguments]) == 2
    assert text in capsys.readouterr().err
    assert not out.exists()


def test_ray_that_is_not_installed_names_the_extra(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    assert main(["study", recipe, "--out", str(tmp_path / "out"), "--executor", "ray"]) == 2
    error = capsys.readouterr().err
    assert "install softprompts with its extra `ray`" in error
    assert len(error.splitlines()) == 1
    assert os.environ.pop("RAY_USAGE_STATS_ENABLED") == "0"


def test_threads_and_devices_are_shared_out():
    executor = PerDevice(["cpu", "cpu", "cpu"])
    assert (executor.device, executor.num_sharing) == ("cpu", 3)
    assert build_executor("in-process", {"devices": None, "address": None}).num_sharing == 1
