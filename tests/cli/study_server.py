"""Starts studies as forked children, so that a start costs little, and ends some early.

A process of its own, since a fork must not follow the first use of OpenMP. Each line of its input
is a request, each line of its output the answer. A request holds `studies`, the arguments of
`softprompts study` per child, and one of
  `kill_at: [call, is_after]`  the child kills itself before or after its n-th change of a file;
  `kill_after: seconds`        the child kills itself that long after its start;
  `interrupt_at: call`         the child sends itself SIGINT, as Ctrl-C does, at its n-th change;
  none of them                 children run to their end, several at a time.
The answer holds per child `exit_code` (negative: the signal), `output`, `errors`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from kill_server import CHANGES

import softprompts.lab.studies.runner  # noqa: F401  (loaded once, before any fork)
from softprompts.cli import progress
from softprompts.cli.main import main as run


def plant(request: dict[str, Any]) -> None:
    """Arrange for this process to end where the request says."""
    if "kill_after" in request:
        timer = threading.Timer(request["kill_after"], os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    count = 0
    call, is_after = request.get("kill_at", (request.get("interrupt_at", 0), False))
    sent = signal.SIGINT if "interrupt_at" in request else signal.SIGKILL

    def counted(change: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            number = count
            if number == call and not is_after:
                os.kill(os.getpid(), sent)
            found = change(*args, **options)
            if number == call and is_after:
                os.kill(os.getpid(), sent)
            return found

        return run

    if call:
        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))


def start(arguments: list[str], request: dict[str, Any], folder: Path) -> int:
    """Fork a child that runs a study; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    plant(request)
    code = run(["study", *arguments])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the children of a request to their ends."""
    with tempfile.TemporaryDirectory() as made:
        children = []
        for number, arguments in enumerate(request["studies"]):
            folder = Path(made) / str(number)
            folder.mkdir()
            children.append((start(arguments, request, folder), folder))
        answers = []
        for pid, folder in children:
            _, status = os.waitpid(pid, 0)
            texts = {name: (folder / name).read_text() for name in ("output", "errors")}
            answers.append({"exit_code": os.waitstatus_to_exitcode(status), **texts})
        return answers


def main() -> None:
    """Answer requests until the input ends."""
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    progress.LINE_SECONDS = threading.TIMEOUT_MAX  # no line because time has passed
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
