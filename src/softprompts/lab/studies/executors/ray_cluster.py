"""Packs as tasks of a Ray cluster."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import torch

from softprompts import __version__
from softprompts.errors import ExecutorError, StorageError
from softprompts.lab.studies.executors.base import Executor, Work
from softprompts.lab.studies.executors.ledger import MOST_ATTEMPTS, Ledger
from softprompts.lab.studies.executors.worker import Event, PackOrder, Worker, WorkerSetup
from softprompts.lab.studies.planning import Pack
from softprompts.lab.studies.worker_loop import WAIT_SECONDS
from softprompts.recipes.grid import Cell
from softprompts.storage import read_record, remove_file, write_json

_PROBE_SECONDS = 600.0
"""How long a node may take to say whether it sees the study's folder."""


@final
class RayCluster(Executor):
    """Trains each pack in a task of a Ray cluster; a task whose worker dies is tried again.

    The study's folder must lie on storage that every node shares, under one path, with locks; so
    must whatever the recipe names. Ray's usage reports are switched off, and so is its dashboard.

    Args:
        address: the cluster's address; `None` starts one on this machine, and ends it.

    Raises:
        ExecutorError: if Ray is not installed.
    """

    def __init__(self, address: str | None = None) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._address = address
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise ExecutorError(
                f"executor ray must have the package ray, but it cannot be imported ({error}): "
                "install softprompts with its extra `ray`."
            ) from error

    def check(self, cells: Sequence[Cell]) -> None:
        """Check that runs leave their device to the node that trains them.

        Raises:
            ExecutorError: if a run names an accelerator by number.
        """
        for cell in cells:
            device = cell.config.backbone.device
            if ":" in device:
                raise ExecutorError(
                    "`backbone.device` must be auto, cpu or cuda with executor ray, which gives a "
                    f"task its accelerator, but is {device!r}."
                )

    def run(self, work: Work) -> None:
        """Train packs until all runs have ended.

        Raises:
            ExecutorError: if the cluster cannot be reached, or a node does not see the folder.
        """
        import ray

        work.resources.release()
        _connect(self._address)
        try:
            _probe(work.store.path.absolute())
            _Dispatch(work).run()
        finally:
            ray.shutdown()


def _connect(address: str | None) -> None:
    """Join a cluster, or start one on this machine."""
    import ray

    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            configure_logging=False,
            log_to_driver=False,
            namespace=f"softprompts-{secrets.token_hex(4)}",
            **own,
        )
    except Exception as error:  # of many classes, by what is wrong
        line = " ".join(str(error).split()) or type(error).__name__
        raise ExecutorError(
            f"`--address` must lead to a Ray cluster, but is {address!r}: {line}"
        ) from error


def _probe(out: Path) -> None:
    """Check that every node sees the study's folder, reads what is written there, and can write."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = secrets.token_hex(8)
    for left in out.glob(".probe.*.part"):  # by one that was killed; another may be at it now
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _PROBE_SECONDS:
                left.unlink()
    asked = out / f".probe.{token}.part"
    write_json(asked, {"token": token})
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    look = ray.remote(look_around)
    try:
        for node in nodes:
            place = NodeAffinitySchedulingStrategy(node, soft=False)
            task = look.options(num_cpus=0, scheduling_strategy=place, max_retries=0)
            answer = out / f".probe.{token}.{node[:16]}.part"
            try:
                found = ray.get(task.remote(asked, answer, Path.cwd()), timeout=_PROBE_SECONDS)
                reason = _mismatch(found, token, answer, out)
            except Exception as error:  # of many classes, by what is wrong
                reason = f"it says {' '.join(str(error).split())[:300]}"
            finally:
                with suppress(StorageError):
                    remove_file(answer)
            if reason:
                raise ExecutorError(
                    f"{out} must be a folder that every node of the Ray cluster shares, but node "
                    f"{node[:16]} does not: {reason}."
                )
    finally:
        with suppress(StorageError):
            remove_file(asked)


def _mismatch(found: dict[str, Any], token: str, answer: Path, out: Path) -> str:
    """Return what is wrong with what a node found, or nothing."""
    if found["version"] != __version__:
        return f"it has softprompts {found['version']}, not {__version__}"
    if found["token"] != token:
        return f"{out} holds another file there"
    return "" if answer.is_file() else "what it writes does not arrive"


def look_around(asked: Path, answer: Path, place: Path) -> dict[str, Any]:
    """Read a file of the study's folder, and write another: what a node does to show that it can.

    Relative paths of a recipe start from `place`.

    Returns:
        `version` of the library, and the file's `token`.
    """
    os.chdir(place)
    token = read_record(asked, ["token"])["token"]
    write_json(answer, {"token": token})
    return {"version": __version__, "token": token}


class EventBoard:
    """Where tasks pin what they tell; the study's own process takes it down."""

    def __init__(self) -> None:
        self._events: list[tuple[str, str, Event]] = []

    def pin(self, pack: str, worker: str, event: Event) -> None:
        """Add what a worker tells of a pack."""
        self._events.append((pack, worker, event))

    def take(self) -> list[tuple[str, str, Event]]:
        """Return what was pinned since the last time."""
        found, self._events = self._events, []
        return found


@final
class _Dispatch:
    """Gives packs to tasks, and hears of them."""

    def __init__(self, work: Work) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        store = work.store
        setup = WorkerSetup(store.study, store.path.absolute(), work.resources.observer)
        self._ledger, self._setup = Ledger(work), ray.put(setup)
        # a node that leaves takes its actors along: the board stays where the study's process is
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._board = ray.remote(EventBoard).options(num_cpus=0, scheduling_strategy=here).remote()
        has_accelerators = ray.cluster_resources().get("GPU", 0) > 0
        self._task = ray.remote(train_pack).options(
            num_cpus=1, num_gpus=int(has_accelerators), max_retries=MOST_ATTEMPTS - 1
        )
        self._packs: dict[Any, Pack] = {}
        self._workers: dict[Pack, str] = {}

    def run(self) -> None:
        """Train packs until all runs have ended."""
        import ray

        while self._ledger.packs or self._packs:
            while (pack := self._ledger.take()) is not None:
                order, place = self._ledger.order(pack), Path.cwd()
                self._workers.pop(pack, None)
                task = self._task.remote(self._setup, order, place, self._board)
                self._packs[task] = pack
            if not self._packs:
                self._ledger.wait()
                continue
            done, _ = ray.wait(list(self._packs), timeout=WAIT_SECONDS)
            self._hear()
            for task in done:
                self._conclude(task, self._packs.pop(task))

    def _hear(self) -> None:
        import ray

        packs = {pack.name: pack for pack in self._packs.values()}
        for name, worker, event in ray.get(self._board.take.remote()):
            pack = packs[name]
            if self._workers.setdefault(pack, worker) != worker:  # Ray tries it again
                self._workers[pack] = worker
                self._ledger.resume(pack, "died")
            self._ledger.hear(pack, event)

    def _conclude(self, task: Any, pack: Pack) -> None:
        """Take note that a task is over, with or without success."""
        import ray

        try:
            last = ray.get(task)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:  # its worker died once too often
            reason = " ".join(str(error).split())[:300]
            self._ledger.give_up(pack, f"its worker died {MOST_ATTEMPTS} times: {reason}")
        else:
            self._ledger.hear(pack, last)


_workers: dict[str, Worker] = {}
"""Of a Ray process, which has one task at a time: what it keeps of the study it works on."""


def train_pack(setup: WorkerSetup, order: PackOrder, place: Path, board: Any) -> Event:
    """Train a pack, tell the board, and return the last event: what a task does.

    Relative paths of a recipe start from `place`.
    """
    import ray

    os.chdir(place)
    torch.set_num_threads(1)
    name, worker = order.pack.name, ray.get_runtime_context().get_worker_id()
    last: Event | None = None
    pinned: list[Any] = []

    def tell(event: Event) -> None:
        nonlocal last
        last = event
        if event[0] not in ("leave", "raise"):
            pinned[:] = [board.pin.remote(name, worker, event)]

    tell(("enter",))
    ray.get(pinned)  # before it trains: who dies unheard is not counted
    if str(setup.out) not in _workers:
        _workers.clear()
        _workers[str(setup.out)] = Worker(setup, None)
    _workers[str(setup.out)].train(order, tell)
    ray.get(pinned)  # so is all that was told before
    assert last is not None
    return last
