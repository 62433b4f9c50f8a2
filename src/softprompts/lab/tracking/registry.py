"""Trackers that `--tracker` may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompts.registry import Registry

if TYPE_CHECKING:
    from softprompts.lab.tracking.base import Tracker

TRACKERS: Registry[type[Tracker]] = Registry("tracker", "softprompts.lab.tracking.base:Tracker")
TRACKERS.register(
    "tensorboard",
    "softprompts.lab.tracking.tensorboard:TensorBoard",
    summary="event files for TensorBoard, beside the runs",
)
TRACKERS.register(
    "wandb",
    "softprompts.lab.tracking.wandb:WeightsAndBiases",
    summary="Weights & Biases; its environment variables say where and whether online",
)
TRACKERS.register(
    "mlflow",
    "softprompts.lab.tracking.mlflow:MLflow",
    summary="MLflow; a local store beside the runs unless MLFLOW_TRACKING_URI says otherwise",
)
