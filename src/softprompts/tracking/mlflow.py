"""MLflow."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, final

from softprompts.tracking.base import TrackedRun, Tracker


@final
class MLflow(Tracker):
    """Sends metrics to MLflow.

    A process has one MLflow run at a time, but a pack has several: a run is opened for each
    batch of metrics and closed again.
    """

    package = "mlflow"

    def start(self, run: TrackedRun) -> str:
        """Make the run, or find it again."""
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            run.folder.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{run.folder.absolute() / 'mlflow.db'}")
        own = _open(run)
        key = str(own.tracker.info.run_id)
        self._run = replace(run, key=key)
        if not run.key:
            own.store_init_configuration(dict(run.settings))
        own.finish()
        return key

    def log(self, lines: list[tuple[int, dict[str, float]]]) -> None:
        """Send metrics."""
        own = _open(self._run)
        try:
            for step, values in lines:
                own.log(values, step=step)
        finally:
            own.finish()

    def finish(self) -> None:
        """Do nothing: the run is closed after each batch."""


def _open(run: TrackedRun) -> Any:
    from accelerate.tracking import MLflowTracker

    own = MLflowTracker(run.project, run_id=run.key or None, run_name=run.name)
    own.start()
    return own
