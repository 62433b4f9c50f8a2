"""Kills verbs at random moments, and starves them; what is started again must end the same.

    python tests/crash/crash.py --kills 1000 --out docs/results/reliability/crash.json

A case is a verb with small rows and a tiny model. Its files after an undisturbed run are the
reference. A trial starts the verb in a new folder, kills it after a random time, starts it again,
and so on until it ends by itself; then its files must be those of the reference, byte for byte but
for the time that things took. A shortage (a full disk, small files, few file handles, little
memory, a clock that jumps while the verb runs) does the same with a first start that is starved
instead of killed. A study with Ray is killed where Ray is installed.

The server imports everything once and forks a child per start, so that a start costs a fraction of
a second; the processes of devices are forked as well, so that most kills hit work. It computes
nothing itself: a fork must not follow the first use of OpenMP.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import multiprocessing
import os
import pkgutil
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "cli")]
TIMES = {"seconds", "examples_per_second", "peak_bytes", "seconds_per_update"}
TIMED = {f"{table}.{kind}" for table in ("cost", "runs") for kind in ("csv", "tex")}
TIMED |= {"report.html"}  # they say how long runs took
MOST_SECONDS = 1200  # machines are busy
NUM_DISK_KIB = 4096
SHORTAGES = ("disk", "file size", "handles", "memory", "clock")


@dataclass
class Case:
    """A verb that is disturbed.

    Attributes:
        name: what it is called in counts.
        arguments: the command; its folder `out` lies in the trial's own.
        prepare: the command that makes what it needs, once for all trials.
        is_starved: whether shortages are tried; what Ray's own processes say of them is not ours.
        seconds: how long it takes undisturbed.
        expected: digests of the files that it leaves.
    """

    name: str
    arguments: Sequence[str]
    prepare: Sequence[str] = ()
    is_starved: bool = True
    seconds: float = 0.0
    expected: dict[str, str] = field(default_factory=dict)


def cases(place: Path) -> list[Case]:
    """Return all cases, whose recipes and rows lie in a folder."""
    from cli_material import files_task, rows, write_rows

    write_rows(place / "data" / "train.jsonl", rows(0, 24))
    write_rows(place / "data" / "val.jsonl", rows(100, 116))
    texts = [{**row, "text": f"{row['text']} {n}"} for n, row in enumerate(rows(0, 60))]
    write_rows(place / "fit.jsonl", texts)
    training = {"steps": 6, "batch_size": 4, "learning_rate": 0.3, "num_evaluations": 3}
    run = {
        "backbone": {"name": str(place / "bert")},
        "task": files_task(place / "data"),
        "readout": "linear",
        "prompt": {"method": "residual", "length": 3, "rows": {"bottleneck": 6, "dropout": 0.3}},
        "training": {**training, "checkpoint_every_steps": 2},
        "seed": 3,
    }
    study = {
        "base": {key: value for key, value in run.items() if key != "seed"},
        "variants": {"short": {}, "long": {"prompt.length": 5}},
        "seeds": [0, 1, 2],
    }
    written = {**run, "backbone": {"name": str(place / "gpt2")}, "readout": "text"}
    for name, content in (("run", run), ("study", study), ("written", written)):
        (place / f"{name}.yaml").write_text(json.dumps(content), encoding="utf-8")
    made, done = str(place / "run.yaml"), str(place / "ready" / "out")
    again = ["study", str(place / "study.yaml"), "--out", "out"]
    devices = [*again, "--executor", "per-device", "--devices", "cpu,cpu"]
    fit = ["fit", str(place / "fit.jsonl"), "--backbone", str(place / "bert"), "--budget", "1s"]
    found = [
        Case("train", ["train", made, "--out", "out", "--resume"]),
        Case("study, packed", again),
        Case("study, single runs", [*again, "--pack-size", "1"]),
        Case("report", ["report", done, "--html", "out/page.html"], again),
        Case(
            "export",
            ["export", f"{done}-run", "--to", "embeds", "--out", "out"],
            ["train", str(place / "written.yaml"), "--out", f"{done}-run"],
        ),
        Case("fit", [*fit, "--out", "out"]),
        Case("study, per device", devices),
    ]
    if importlib.util.find_spec("ray"):
        found.append(Case("study, Ray", [*again, "--executor", "ray"], is_starved=False))
    return found


def import_all() -> None:
    """Import the whole library, so that children need not."""
    import softprompts

    for module in pkgutil.walk_packages(softprompts.__path__, "softprompts."):
        if not module.name.endswith((".ray_cluster", ".wandb", ".mlflow", ".tensorboard")):
            importlib.import_module(module.name)


def start(arguments: Sequence[str], place: Path, plan: Callable[[], None] = lambda: None) -> int:
    """Fork a child that runs a verb in a folder, after a plan was laid; return its process id."""
    pid = os.fork()
    if pid:
        with suppress(OSError):  # the child may have done so, or have ended
            os.setpgid(pid, pid)
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(place)
        for number, name in ((1, "output"), (2, "errors")):
            path = place.parent / f"{place.name}.{name}"
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        plan()
        from softprompts.cli.main import main as run
        from softprompts.lab.fit import fitting
        from softprompts.lab.studies.executors import per_device

        per_device.get_context = lambda kind: multiprocessing.get_context("fork")
        make = fitting.make_plan  # by a speed that is not measured, so that all plans are one
        fitting.make_plan = lambda budget, _, *rest: make(budget, 200.0, *rest)

        code = run(list(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(pid: int, seconds: float) -> int | None:
    """Wait for a child; return its exit code, or `None` where it was killed with all it started."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    below = psutil.Process(pid).children(recursive=True)  # Ray's are in groups of their own
    os.killpg(pid, signal.SIGKILL)
    for process in below:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return None if code == -signal.SIGKILL else code


def files_of(place: Path) -> dict[str, str]:
    """Return digests of the files of a folder that say what was found.

    Left out are locks, how long things took, checkpoints, and which runs stood side by side: by
    the memory that there was, and no result depends on it.

    Parts that a killed process had not renamed yet are no files of a folder either. A checkpoint
    says how long a run took so far.
    """
    found = {}
    for path in sorted(place.rglob("*")):
        is_left_out = path.name in (".lock", "packs.json") or path.parent.name == "state"
        if path.is_file() and not is_left_out and ".part" not in str(path):
            content = path.read_bytes().replace(str(place).encode(), b"here")
            if path.suffix in (".json", ".jsonl"):
                content = _timeless(content)
            if path.name in TIMED:
                content = b"there"
            found[str(path.relative_to(place))] = hashlib.sha256(content).hexdigest()
    return found


def _timeless(content: bytes) -> bytes:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(one) for k, one in value.items() if k not in TIMES}
        return [without(one) for one in value] if isinstance(value, list) else value

    try:
        whole = [json.loads(content)]
    except ValueError:
        whole = [json.loads(line) for line in content.splitlines()]
    return json.dumps(without(whole)).encode()


class Crash:
    """Runs trials and counts what became of them.

    Args:
        seed: draws moments and shortages.
        place: an empty folder.
        names: the cases, by name; all where empty.
    """

    def __init__(self, seed: int, place: Path, names: Sequence[str] = ()) -> None:
        self.draws, self.place = random.Random(seed), place
        self.counts: dict[str, Counter[str]] = {}
        self.losses: list[str] = []
        self._number = 0
        (place / "ready").mkdir()
        self._run(["--version"], place / "ready", lambda: _build(place))
        known = cases(place)
        self.cases = [case for case in known if not names or case.name in names]
        for case in self.cases:
            self._prepare(case)

    def _run(self, arguments: Sequence[str], place: Path, plan: Any = lambda: None) -> None:
        code = end(start(arguments, place, plan), MOST_SECONDS)
        said = (place.parent / f"{place.name}.errors").read_text()
        assert code == 0, f"{arguments} must end well, but ends with {code}: {said}"

    def _prepare(self, case: Case) -> None:
        ready = self.place / "ready"
        if case.prepare:
            self._run(case.prepare, ready)
        whole = []
        for _ in range(2):
            place = self.new_place(case)
            began = time.monotonic()
            self._run(case.arguments, place)
            case.seconds = time.monotonic() - began
            print(f"{case.name}: {case.seconds:.1f} s undisturbed", file=sys.stderr, flush=True)
            whole.append(files_of(place))
        apart = sorted(dict(whole[0].items() ^ whole[1].items()))
        assert not apart, f"{case.name} must be the same twice, but differs in {apart}"
        assert whole[0], f"{case.name} must leave files"
        case.expected = whole[0]

    def new_place(self, case: Case) -> Path:
        """Return a new folder for a trial."""
        self._number += 1
        place = self.place / f"trial-{self._number}"
        (place / "out").mkdir(parents=True) if case.name == "report" else place.mkdir()
        return place

    def kill(self, case: Case) -> None:
        """Start a case, kill it at random moments until it ends by itself, and look at it."""
        place, count = self.new_place(case), self.counts.setdefault(case.name, Counter())
        count["trials"] += 1
        reach = 0.8 * case.seconds
        while True:
            moment = self.draws.uniform(0, reach)
            reach *= 1.05  # on a machine that others use, too, none may get on otherwise
            code = end(start(case.arguments, place), moment)
            if code is not None:
                break
            count["kills"] += 1
        self._look(case, place, code, count)

    def starve(self, case: Case, shortage: str) -> None:
        """Start a case with too little of something, then with enough, and look at it."""
        place, count = self.new_place(case), self.counts.setdefault(shortage, Counter())
        count["trials"] += 1
        with _starved(shortage, place, self.draws) as plan:
            code = end(start(case.arguments, place, plan), MOST_SECONDS)
            if code is None:
                self._lose(case, place, count, "hangs", f"{shortage}: no end")
                return
            count["stopped" if code else "unharmed"] += 1
            if code < 0:
                count["ended by a signal"] += 1
            elif code and not self._is_told(place):
                self._lose(case, place, count, "tracebacks", f"{shortage}: exit {code}")
            if shortage == "disk":
                mount = ["mount", "-o", "remount,size=1g", str(place)]
                subprocess.run(mount, check=True, capture_output=True)
            code = end(start(case.arguments, place), MOST_SECONDS)
            self._look(case, place, code, count)

    def _is_told(self, place: Path) -> bool:
        """Return whether a start that failed said so, and why, without a traceback."""
        said = (place.parent / f"{place.name}.errors").read_text()
        is_said = "error: " in said or "failed: " in said or "could not be" in said
        return is_said and "Traceback" not in said

    def _look(self, case: Case, place: Path, code: int | None, count: Counter[str]) -> None:
        if code is None:
            self._lose(case, place, count, "hangs", "no end")
        elif code and not (case.name == "export" and files_of(place) == case.expected):
            self._lose(case, place, count, "refused", f"exit {code}")
        elif (found := files_of(place)) != case.expected:
            names = sorted(dict(found.items() ^ case.expected.items()))
            self._lose(case, place, count, "losses", f"differs: {', '.join(names)}")
        else:
            count["equal"] += 1
            for path in place.iterdir():  # it may be a disk of its own
                shutil.rmtree(path)

    def _lose(self, case: Case, place: Path, count: Counter[str], kind: str, text: str) -> None:
        count[kind] += 1
        errors = place.parent / f"{place.name}.errors"
        said = " ".join(errors.read_text().split())[-300:] if errors.exists() else ""
        self.losses.append(f"{case.name} in {place.name}: {text} {said}".strip())
        print(self.losses[-1], file=sys.stderr, flush=True)

    def spent(self, case: Case) -> float:
        """Return how often a case was killed; what takes long counts more."""
        return self.counts.get(case.name, Counter())["kills"] * case.seconds**0.5

    @property
    def num_kills(self) -> int:
        """Kills so far."""
        return sum(count["kills"] for count in self.counts.values())


def _build(place: Path) -> None:
    from backbones import build

    for kind in ("bert", "gpt2"):
        build(kind, place / kind)


@contextmanager
def _starved(shortage: str, place: Path, draws: random.Random) -> Iterator[Callable[[], None]]:
    """Yield what makes something scarce in a child."""
    share = draws.random()

    def limit(kind: int, most: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(kind, (most, most))

    if shortage == "file size":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sys.dont_write_bytecode = True  # Python 3.11 keeps what it could write of it
        yield limit(resource.RLIMIT_FSIZE, int(200 * 500**share))
    elif shortage == "handles":
        yield limit(resource.RLIMIT_NOFILE, draws.randrange(6, 24))
    elif shortage == "memory":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        yield limit(resource.RLIMIT_AS, pages * resource.getpagesize() + int(share * 2e8))
    elif shortage == "clock":
        jump, real = (share - 0.5) * 2e9, time.time
        moment = real() + 2 * draws.random()
        yield lambda: setattr(time, "time", lambda: real() + jump * (real() > moment))
    else:
        size = int(4096 * NUM_DISK_KIB ** (0.3 + 0.45 * share))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        subprocess.run(mount, check=True, capture_output=True)
        try:
            yield lambda: None
        finally:
            subprocess.run(["umount", str(place)], check=True)


def can_mount(place: Path) -> bool:
    """Return whether this user may mount a small disk."""
    try:
        with _starved("disk", place, random.Random(0)):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def main() -> None:
    """Run trials until there were enough kills, or time is up."""
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=1000)
    options.add_argument("--starved", type=int, default=20, help="trials of each shortage")
    options.add_argument("--seconds", type=float, default=float("inf"))
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--cases", default="")
    options.add_argument("--add", action="store_true", help="to the counts of an earlier seed")
    options.add_argument("--out", type=Path, default=Path(os.devnull))
    given = options.parse_args()
    given.before = {"about": "", "seeds": "", "counts": {}, "losses": []}
    if given.add:
        given.before = json.loads(given.out.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    import_all()
    with tempfile.TemporaryDirectory() as made:
        os.environ["RAY_TMPDIR"] = made
        crash = Crash(given.seed, Path(made), tuple(filter(None, given.cases.split(";"))))
        _write(crash, given)
        stop = time.monotonic() + given.seconds  # of trials: one at least begins
        probe = Path(made) / "probe"
        probe.mkdir()
        kinds = [one for one in SHORTAGES if one != "disk" or can_mount(probe)]
        poor = [case for case in crash.cases if case.is_starved]
        for number in range(given.starved):
            for shortage in kinds:
                if time.monotonic() < stop:
                    crash.starve(poor[number % len(poor)], shortage)
        _write(crash, given)
        while crash.num_kills < given.kills and time.monotonic() < stop:
            crash.kill(min(crash.cases, key=crash.spent))
            _write(crash, given)
    sys.exit(bool(crash.losses))


def _write(crash: Crash, given: argparse.Namespace) -> None:
    """Write the counts so far, with those of earlier seeds where they are to be added up."""
    before = given.before
    counts = {name: Counter(one) for name, one in before["counts"].items()}
    for name, one in crash.counts.items():
        counts[name] = counts.get(name, Counter()) + one
    found = {
        "about": before.get("about", ""),
        "seeds": f"{before['seeds']}, {given.seed}".strip(", "),
        "kills": sum(count["kills"] for count in counts.values()),
        "counts": {name: dict(sorted(one.items())) for name, one in counts.items()},
        "losses": [*before["losses"], *crash.losses],
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
