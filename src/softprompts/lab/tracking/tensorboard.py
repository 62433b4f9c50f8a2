"""Event files for TensorBoard."""

from __future__ import annotations

from typing import Any, ClassVar, final

from softprompts.lab.tracking.base import TrackedRun, Tracker


@final
class TensorBoard(Tracker):
    """Writes event files under the tracking folder; `tensorboard --logdir` reads them."""

    packages: ClassVar[tuple[str, ...]] = ("accelerate", "tensorboard")

    def start(self, run: TrackedRun) -> str:
        """Begin event files; a process that goes on adds one."""
        from accelerate.tracking import TensorBoardTracker

        self._own: Any = TensorBoardTracker(run.name, run.folder / "tensorboard")
        self._own.start()
        if not run.key:
            self._own.store_init_configuration(dict(run.settings))
        return run.name

    def log(self, lines: list[tuple[int, dict[str, float]]]) -> None:
        """Write metrics."""
        for step, values in lines:
            self._own.log(values, step=step)

    def finish(self, is_over: bool) -> None:
        """Close the files."""
        self._own.finish()
