"""Training from Python: the objects that a program already holds, instead of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softprompts.backbones.backbone import Backbone
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.schema import PromptConfig, TrainingConfig
from softprompts.results import Result
from softprompts.tasks.base import Task
from softprompts.training.execution import execute
from softprompts.training.progress import Progress


def train(
    backbone: Backbone,
    task: Task,
    *,
    prompt: PromptConfig | None = None,
    readout: str | dict[str, Any] = "linear",
    training: TrainingConfig | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train one prompt on a frozen backbone.

    Args:
        backbone: from `load_backbone`.
        task: from `load_task`, or built by hand.
        prompt: the prompt; prompt tuning with 10 rows when `None`.
        readout: a readout's name, or a mapping with `kind` and its options.
        training: optimizer, rates, steps and selection; the defaults when `None`.
        seed: moves initialization, order, held-out rows and dropout.
        max_tokens: cap on the tokens of one input; `None` uses the whole context.
        out: the run's folder, resumed if it holds an interrupted run; `None` keeps nothing.
        progress: told of every update.

    Returns:
        The trained prompt with its score.

    Raises:
        SoftPromptsError: if the parts do not fit each other; the text says which and why.
    """
    origin = dict(task.origin) or {"name": "custom"}
    recipe = {
        "backbone": {
            "name": backbone.name,
            "dtype": str(backbone.dtype).removeprefix("torch."),
            "device": str(backbone.device),
        },
        "task": {**origin, "max_tokens": max_tokens},
        "readout": readout,
        "prompt": prompt or PromptConfig(),
        "training": training or TrainingConfig(),
        "seed": seed,
    }
    config = parse_run(recipe, "train")
    folder = Path(out) if out is not None else None
    return Result.of(execute(config, backbone, task, folder=folder, progress=progress))
