"""A process for each device, each with one pack at a time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, final

import torch

from softprompts.backbones.placing import check_device
from softprompts.errors import ExecutorError
from softprompts.lab.studies.executors.base import Executor, Work
from softprompts.lab.studies.executors.ledger import Ledger
from softprompts.lab.studies.executors.worker import Event, Worker, WorkerSetup
from softprompts.lab.studies.planning import Pack
from softprompts.lab.studies.worker_loop import WAIT_SECONDS
from softprompts.recipes.grid import Cell
from softprompts.training.footprint import share_memory

_LEAVE_SECONDS = 10.0
"""How long a process may take to leave before it is killed."""


@final
class PerDevice(Executor):
    """Trains packs in one process per device; a process that dies is replaced.

    The threads of this process are shared out among them, and so is the processor's memory.

    Args:
        devices: torch devices, an accelerator once at most; all accelerators when empty, or the
            processor where there is none.

    Raises:
        ExecutorError: if an accelerator is named twice, or devices of several types.
        BackboneError: if torch cannot use a device.
    """

    def __init__(self, devices: Sequence[str] = ()) -> None:
        num_found = torch.cuda.device_count()
        self.devices = tuple(devices) or tuple(f"cuda:{i}" for i in range(num_found)) or ("cpu",)
        shown = ",".join(self.devices)
        places = [check_device(name) for name in self.devices]
        if len({place.type for place in places}) > 1:
            raise ExecutorError(
                f"`--devices` must be of one type, since packs are made for it, but is {shown!r}."
            )
        named = [(place.type, place.index or 0) for place in places if place.type != "cpu"]
        if len(set(named)) < len(named):
            raise ExecutorError(
                f"`--devices` must name an accelerator once at most, but is {shown!r}."
            )

    @property
    def device(self) -> str:
        """The first device."""
        return self.devices[0]

    @property
    def num_sharing(self) -> int:
        """How many processes share the processor."""
        return len(self.devices) if self.device == "cpu" else 1

    def check(self, cells: Sequence[Cell]) -> None:
        """Check that runs leave the choice of their device to this executor.

        Raises:
            ExecutorError: if a run names a device, or spreads its backbone over several.
        """
        for cell in cells:
            backbone = cell.config.backbone
            if backbone.device != "auto":
                raise ExecutorError(
                    "`backbone.device` must be auto with executor per-device, which gives each "
                    f"process its device, but is {backbone.device!r}."
                )
            if backbone.device_map is not None:
                raise ExecutorError(
                    "`backbone.device_map` must be null with executor per-device, since such a "
                    f"backbone takes several devices, but is {backbone.device_map!r}."
                )

    def run(self, work: Work) -> None:
        """Train packs until all runs have ended."""
        work.resources.release()
        store, ledger = work.store, Ledger(work)
        num_threads = max(1, torch.get_num_threads() // len(self.devices))
        setup = WorkerSetup(store.study, store.path.absolute(), work.resources.observer)
        with ExitStack() as stack:
            processes = [
                stack.enter_context(_DeviceProcess(setup, device, num_threads, self.num_sharing))
                for device in self.devices[: len(ledger.packs)]
            ]
            while True:
                for process in processes:
                    process.take_next(ledger)
                busy = {one.connection: one for one in processes if one.pack is not None}
                if not busy and not ledger.packs:
                    break
                if not busy:
                    ledger.wait()
                    continue
                for connection in wait(list(busy), WAIT_SECONDS):
                    assert isinstance(connection, Connection)
                    busy[connection].listen(ledger)


@final
class _DeviceProcess:
    """A device, and the process that works on it; a context manager."""

    def __init__(self, setup: WorkerSetup, device: str, num_threads: int, num_sharing: int) -> None:
        self.pack: Pack | None = None
        self._device, self._about = device, (setup, device, num_threads, num_sharing)
        self._start()

    def __enter__(self) -> _DeviceProcess:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        """Let the process leave; kill it where something went wrong, as it survives that."""
        try:
            if kind is not None:
                self._process.kill()
            else:
                self._send(None)
            self._process.join(_LEAVE_SECONDS)
        finally:
            self._process.kill()
            self._process.join()
            self.connection.close()

    def take_next(self, ledger: Ledger) -> None:
        if self.pack is None:
            self.pack = ledger.take()
            if self.pack is not None:
                self._send(ledger.order(self.pack))

    def listen(self, ledger: Ledger) -> None:
        """Hear what the process tells; replace it where it died, after it could begin."""
        assert self.pack is not None
        try:
            event: Event = self.connection.recv()
        except (EOFError, OSError):
            self._replace(ledger, self.pack)
            return
        if event[0] == "ready":
            self._is_ready = True
        elif ledger.hear(self.pack, event):
            self.pack = None

    def _replace(self, ledger: Ledger, pack: Pack) -> None:
        self._process.join()
        self.connection.close()
        code = self._process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}"
        if not self._is_ready:
            raise ExecutorError(f"a process on {self._device} must start, but {how}.")
        self.pack = None
        ledger.lose(pack, how)
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._is_ready = False
        self._process = context.Process(target=serve, args=(theirs, *self._about), daemon=True)
        with _interrupts_held():
            self._process.start()
        theirs.close()

    def _send(self, message: Any) -> None:
        """Send a message; that nobody is there to read it shows when one listens."""
        with suppress(OSError):
            self.connection.send(message)


def serve(
    connection: Connection, setup: WorkerSetup, device: str, num_threads: int, num_sharing: int
) -> None:
    """Train the packs that a process at the other end gives, until there are no more.

    So many processes as `num_sharing` share the processor's memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process, which ends this
    torch.set_num_threads(num_threads)
    share_memory(num_sharing)

    def tell(event: Event) -> None:
        try:
            connection.send(event)
        except OSError:  # nobody is left to train for; what is durable is there
            os._exit(1)

    worker = Worker(setup, device)
    tell(("ready",))
    try:
        while (order := connection.recv()) is not None:
            worker.train(order, tell)
    except EOFError:
        os._exit(1)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a process is started, which then never sees one."""
    resource_tracker.ensure_running()  # which would let interrupts through
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
