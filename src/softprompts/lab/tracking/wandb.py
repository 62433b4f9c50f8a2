"""Weights & Biases."""

from __future__ import annotations

import os
import secrets
from typing import Any, ClassVar, final

from softprompts.lab.tracking.base import TrackedRun, Tracker


@final
class WeightsAndBiases(Tracker):
    """Sends metrics to Weights & Biases, as its environment variables say (`WANDB_MODE`, …).

    What a process prints is not sent, unless `WANDB_CONSOLE` is set: it may have several runs. A
    run that is interrupted has the exit code 1 there until another process goes on.
    """

    packages: ClassVar[tuple[str, ...]] = ("accelerate", "wandb")

    def start(self, run: TrackedRun) -> str:
        """Begin the run, beside others of this process, or go on with it."""
        from accelerate.state import PartialState
        from accelerate.tracking import WandBTracker

        PartialState()  # without it accelerate's log, which its class writes to, raises
        key = run.key or secrets.token_hex(8)
        run.folder.mkdir(parents=True, exist_ok=True)
        self._own: Any = WandBTracker(
            run.project,
            name=run.name,
            id=key,
            resume="allow",
            reinit="create_new",  # runs of a pack are open side by side
            dir=str(run.folder),
            config=dict(run.settings),
            settings={"console": os.environ.get("WANDB_CONSOLE") or "off"},
        )
        self._own.start()
        return key

    def log(self, lines: list[tuple[int, dict[str, float]]]) -> None:
        """Send metrics."""
        for step, values in lines:
            self._own.log(values, step=step)

    def finish(self, is_over: bool) -> None:
        """End the run."""
        self._own.tracker.finish(exit_code=0 if is_over else 1)
