"""Weights & Biases."""

from __future__ import annotations

import secrets
from typing import Any, final

from softprompts.tracking.base import TrackedRun, Tracker


@final
class WeightsAndBiases(Tracker):
    """Sends metrics to Weights & Biases, as its environment variables say (`WANDB_MODE`, …)."""

    package = "wandb"

    def start(self, run: TrackedRun) -> str:
        """Begin the run, beside others of this process, or go on with it."""
        from accelerate.tracking import WandBTracker

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
        )
        self._own.start()
        return key

    def log(self, lines: list[tuple[int, dict[str, float]]]) -> None:
        """Send metrics."""
        for step, values in lines:
            self._own.log(values, step=step)

    def finish(self) -> None:
        """End the run."""
        self._own.finish()
