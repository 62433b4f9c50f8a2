"""How many threads torch computes with, and that they sleep while they wait."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

_POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user says how OpenMP's threads wait."""

_NUMBERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
"""Variables by which a user says how many threads there are."""


def sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep while they wait for each other.

    They spin by default, which on a busy machine takes the core from the thread that they wait
    for. OpenMP reads the variable once, when torch is imported: nothing is changed where that has
    happened, or where the user has said how threads wait. Processes that are started later inherit
    it.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _POLICIES):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def choose_threads() -> str:
    """Set how many threads torch will have: what affinity and quota leave of the cores.

    The load of the machine is said but does not count: threads that sleep lose little on a busy
    one, and the bits of a run, which may be resumed at a quieter hour, depend on their number. What
    was chosen is returned in one line, "" where torch is imported already or the user has said it.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _NUMBERS):
        return ""
    num_cores, quota = count_cores(), read_quota()
    num_threads = max(1, min(num_cores, math.floor(quota)) if quota else num_cores)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
    share = f", of which a quota leaves {quota:g}" if quota and quota < num_cores else ""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    others = f"the machine is busy (load {load:.1f}) and threads that wait sleep; "
    return (
        f"threads: {num_threads}, for {num_cores} core{'s' if num_cores != 1 else ''}{share}; "
        f"{others if num_threads > 1 and load > num_cores else ''}"
        "OMP_NUM_THREADS sets another number"
    )


def count_cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return the cores that this process may run on; two threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    siblings = "cpu{}/topology/thread_siblings_list"
    return len({_text(topology / siblings.format(one)) or str(one) for one in allowed})


def read_quota(
    groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Return how many processors' time this process's control groups leave it; `None` for all."""
    found = []
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += [_share(_text(place / "cpu.max")) for place in _upwards(groups, path)]
        elif "cpu" in controllers.split(","):
            for place in _upwards(groups / "cpu", path):
                period = _text(place / "cpu.cfs_period_us")
                found.append(_share(f"{_text(place / 'cpu.cfs_quota_us')} {period}"))
    return min((share for share in found if share is not None), default=None)


def _upwards(root: Path, path: str) -> list[Path]:
    """Return a control group's folder and all above it, each of which may set a limit."""
    below = [part for part in path.split("/") if part]
    return [root.joinpath(*below[:depth]) for depth in range(len(below), -1, -1)]


def _share(text: str) -> float | None:
    """Return processors from `quota period`, in microseconds; `None` where there is no limit."""
    amounts = text.split()
    if len(amounts) != 2 or not all(amount.isdigit() for amount in amounts):
        return None  # `max`, -1, or nothing
    return int(amounts[0]) / int(amounts[1])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
