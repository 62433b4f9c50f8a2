"""Damaged recipes, rows, folders and headers, by the thousand; counts what is said of them.

    python tests/fuzz/fuzz.py --out docs/results/reliability/fuzz.json

Each case is read in this process, within a time and a memory. An answer is success or an error of
the library in one line; all else is a finding, and so is a program that is started or a file that
is written outside the folder of the case.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from softprompts.cli.output import problems_of
from softprompts.errors import SoftPromptsError

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

SECONDS, BYTES = 60, 4 << 30
COUNTS = {"recipes": 10_000, "rows": 5_000, "folders": 5_000, "headers": 1_000, "exports": 1_000}
LABELS = {
    "recipes": "recipes and studies",
    "rows": "rows in jsonl, json, csv and parquet",
    "folders": "folders of runs and studies",
    "headers": "headers of GGUF and safetensors",
    "exports": "exported folders and hub cards",
}

ABOUT = (
    "`make fuzz` damages what the library reads, from a seed, and reads it in one process. An "
    f"answer may take {SECONDS} s and {BYTES >> 30} GB. It is success or one line that says what "
    "is wrong; `else` counts tracebacks, hangs, programs started, and files written elsewhere."
)
NOTED_CASES = 250

Case = Callable[[random.Random, Path], None]


class SlowError(BaseException):
    """A case took too long; no handler of errors takes this for one."""


class Watch:
    """Notes programs that are started and files that are written outside a folder."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.found: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.fork"):
            self.found.append(f"{event} {arguments!r:.80}")
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            is_written = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            place = Path(os.path.realpath(os.fsdecode(arguments[0])))
            if is_written and not place.is_relative_to(self.folder) and place.suffix != ".pyc":
                self.found.append(f"writes {place}")
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink"):
            path = Path(os.fsdecode(arguments[event in ("os.symlink", "os.rename")]))
            place = Path(os.path.realpath(path.parent))  # a link is not where it leads
            if not place.is_relative_to(self.folder):
                self.found.append(f"{event} {path}")


WATCH = Watch()


def answer(case: Case, draw: random.Random, folder: Path) -> str:
    """Return `accepted`, `refused`, or what is wrong with how a case was answered."""
    WATCH.folder, WATCH.found = folder, []
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case(draw, folder)
        said = "accepted"
    except SoftPromptsError as error:
        lines = problems_of(error)
        is_right = all(line.strip() and "\n" not in line for line in lines)
        said = "refused" if is_right else f"not one line: {str(error)!r:.200}"
    except SlowError:
        said = f"over {SECONDS} s"
    except MemoryError:
        said = "out of memory"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {error!s:.120}"
    finally:
        signal.alarm(0)
        WATCH.folder = None
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > BYTES:
        said = f"takes {grown} bytes"
    if time.monotonic() - began > SECONDS:
        said = f"over {SECONDS} s"
    return WATCH.found[0] if WATCH.found else said


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Bound the memory of this process and let an alarm end a case."""
    limits, handler = resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGALRM)

    def stop(*_: object) -> None:
        raise SlowError

    signal.signal(signal.SIGALRM, stop)
    status = Path("/proc/self/status").read_text().split("VmData:")[1].split()
    resource.setrlimit(resource.RLIMIT_DATA, (int(status[0]) * 1024 + BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        signal.signal(signal.SIGALRM, handler)


Table = dict[str, dict[str, Any]]


def run(
    counts: dict[str, int], seed: int, place: Path, note: Callable[[Table], None] = lambda _: None
) -> tuple[Table, list[str]]:
    """Return counts by kind of case, and the findings with the number of their case.

    Args:
        counts: cases by kind.
        seed: of all damages.
        place: an empty folder.
        note: is given the counts so far, now and then.
    """
    import damaged  # with tests on the path

    cases = damaged.make(place)
    table: Table = {}
    findings: list[str] = []
    case_folder = place / "case"
    with bounded():
        for kind, count in counts.items():
            seen: Counter[str] = Counter()
            slowest = 0.0
            for number in range(count):
                shutil.rmtree(case_folder, ignore_errors=True)
                case_folder.mkdir()
                began = time.monotonic()
                said = answer(cases[kind], random.Random(f"{seed} {kind} {number}"), case_folder)
                slowest = max(slowest, time.monotonic() - began)
                if said not in ("accepted", "refused"):
                    findings.append(f"{kind} {number}: {said}")
                    print(findings[-1], file=sys.stderr, flush=True)
                    said = "else"
                seen[said] += 1
                about = {name: seen[name] for name in ("accepted", "refused", "else")}
                table[kind] = {"cases": number + 1, **about, "slowest_seconds": round(slowest, 1)}
                if (number + 1) % NOTED_CASES == 0 or number + 1 == count:
                    note(table)
    return table, findings


def write(path: Path, table: Table) -> None:
    """Write counts; those of other kinds stay."""
    before = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    kept = {row["what is damaged"]: row for row in before}
    kept |= {LABELS[kind]: {"what is damaged": LABELS[kind], **row} for kind, row in table.items()}
    rows = [kept[label] for label in LABELS.values() if label in kept]
    path.write_text(
        json.dumps({"title": "Damaged input", "about": ABOUT, "rows": rows}, indent=1) + "\n"
    )


def main() -> int:
    """Run the whole, write the counts, and print the findings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of each kind")
    parser.add_argument("--kinds", nargs="*", default=list(COUNTS))
    given = parser.parse_args()
    counts = {kind: max(1, int(COUNTS[kind] * given.share)) for kind in given.kinds}
    with tempfile.TemporaryDirectory() as place:
        note = partial(write, given.out) if given.out else lambda _: None
        table, findings = run(counts, given.seed, Path(place).resolve(), note)
    print(json.dumps(table, indent=1))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
