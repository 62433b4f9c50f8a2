"""Starts runs as forked children, so that a start costs little, and kills some.

A process of its own, since a fork must not follow the first use of OpenMP. It loads backbone and
task once. Each line of its input is a request, each line of its output the answer; the child that a
request starts does everything else anew, from `execute` on.

A request holds `config`, `folder` and one of
  `kill_after: [updates, seconds]`  the parent kills the child some time after its n-th update;
  `kill_at: [call, is_after]`       the child kills itself before or after its n-th change;
  neither                           the child runs to its end.
The answer holds `is_killed`, `exit_code`, and `num_calls` where the child came to its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from softprompts.recipes.parsing import parse_run
from softprompts.training.execution import execute
from softprompts.training.progress import Progress
from softprompts.training.resources import Resources

CHANGES = ("fsync", "replace", "ftruncate", "unlink")
"""The functions of `os` by which a journal changes what is on the disk."""


class Signals(Progress):
    """Writes a byte to a pipe at the start and at every update."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def update(self, step: int, total_steps: int) -> None:
        os.write(self.pipe, b".")


class Calls:
    """Counts changes of files, and ends the process with SIGKILL just before or after one."""

    def __init__(self, call: int, is_after: bool) -> None:
        self.call, self.is_after, self.count = call, is_after, 0
        for name in CHANGES:
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.call and not self.is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = change(*args, **options)
            if self.count == self.call:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return counted


def child(request: dict[str, Any], resources: Resources, pipe: int) -> None:
    """Run one run in its folder."""
    config = parse_run(request["config"])
    backbone = resources.backbone(config.backbone)
    task = resources.task(config.task, config.seed)
    calls = Calls(*request.get("kill_at", (0, False)))
    os.write(pipe, b".")
    execute(config, backbone, task, folder=Path(request["folder"]), progress=Signals(pipe))
    os.write(pipe, f"{calls.count:06}".encode())


def serve(request: dict[str, Any], resources: Resources) -> dict[str, Any]:
    """Fork a child for a request, and kill it where asked."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reads)
            child(request, resources, writes)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writes)
    heard = b""
    if "kill_after" in request:
        updates, seconds = request["kill_after"]
        while len(heard) <= updates and (byte := os.read(reads, 1)):
            heard += byte
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    while piece := os.read(reads, 4096):
        heard += piece
    os.close(reads)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    is_killed = code == -signal.SIGKILL
    count = 0 if is_killed or code else int(heard[-6:])
    return {"is_killed": is_killed, "exit_code": code, "num_calls": count}


def main() -> None:
    """Answer requests until the input ends."""
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    resources = Resources()
    for line in sys.stdin:
        request = json.loads(line)
        config = parse_run(request["config"])
        resources.backbone(config.backbone)
        resources.task(config.task, config.seed)
        print(json.dumps(serve(request, resources)), flush=True)


if __name__ == "__main__":
    main()
