"""MLflow."""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack
from typing import Any, ClassVar, final

from softprompts.lab.tracking.base import TrackedRun, Tracker
from softprompts.locks import lock


@final
class MLflow(Tracker):
    """Sends metrics to MLflow, by its client.

    The client knows no active run. So runs of a pack are open side by side, a run that the
    program has open is left alone, and a run is finished only when it has its result: else it is
    `KILLED`, and `RUNNING` again when another process goes on. What names may not hold there
    becomes a dash. MLflow's usage reports are off, unless `MLFLOW_DISABLE_TELEMETRY` is set.
    """

    packages: ClassVar[tuple[str, ...]] = ("mlflow",)

    def start(self, run: TrackedRun) -> str:
        """Make the run, or open it again."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        place = os.environ.get("MLFLOW_TRACKING_URI")
        with ExitStack() as stack:
            if not place:
                run.folder.mkdir(parents=True, exist_ok=True)
                place = f"sqlite:///{run.folder.absolute() / 'mlflow.db'}"
                # two processes that make a store's tables side by side spoil each other's
                stack.enter_context(lock(run.folder / ".mlflow.lock", should_wait=True))
            self._client: Any = MlflowClient(place)
            self._key = _open(self._client, run)
        return self._key

    def log(self, lines: list[tuple[int, dict[str, float]]]) -> None:
        """Send metrics."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(_allowed(name), value, now, step)
            for step, values in lines
            for name, value in values.items()
        ]
        self._client.log_batch(self._key, metrics=metrics)

    def finish(self, is_over: bool) -> None:
        """Set how the run ended."""
        self._client.set_terminated(self._key, "FINISHED" if is_over else "KILLED")


def _open(client: Any, run: TrackedRun) -> str:
    """Make a run with its settings, or open it again, and return its key."""
    from mlflow.entities import Param

    if run.key:
        client.update_run(run.key, status="RUNNING")
        return run.key
    key = str(client.create_run(_experiment(client, run.project), run_name=run.name).info.run_id)
    settings = [Param(_allowed(name), str(value)) for name, value in run.settings.items()]
    client.log_batch(key, params=settings)
    return key


def _experiment(client: Any, project: str) -> str:
    """Return the experiment's key; it is made if missing."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or project
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:  # no other process made it at this moment
                raise
    return str(found.experiment_id)


def _allowed(name: str) -> str:
    """Return a name without characters that MLflow refuses."""
    return re.sub(r"[^\w/.\- ]", "-", name)
