"""Training from Python: the objects that a program already holds, instead of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.placing import map_of
from softprompts.errors import RecipeError
from softprompts.problems import refuse
from softprompts.recipes.checks import rate_problems
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.schema import PromptConfig
from softprompts.recipes.training_config import TrainingConfig
from softprompts.results import Result, require_backbone
from softprompts.tasks.base import Task
from softprompts.tasks.checking import check_task, warn_of_shared_rows
from softprompts.training.execution import execute
from softprompts.training.progress import Progress, UpdateBar


def train(
    backbone: Backbone,
    task: Task | Mapping[str, Task],
    *,
    prompt: PromptConfig | None = None,
    readout: str | dict[str, Any] = "linear",
    adaptation: str | dict[str, Any] | None = None,
    regularizers: Sequence[str | dict[str, Any]] = (),
    training: TrainingConfig | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    sampling: str | dict[str, Any] | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train one prompt on a frozen backbone.

    Args:
        backbone: from `load_backbone`.
        task: from `load_task`, or built by hand; several by names of your own, which then share
            the prompt.
        prompt: the prompt; prompt tuning with 10 rows when `None`.
        readout: a readout's name, or a mapping with `kind` and its options.
        adaptation: what is trained of the backbone, in a copy: a name, or a mapping of its options;
            the method's when `None`.
        regularizers: what is added to the loss: mappings with `kind` and options.
        training: optimizer, rates, steps and selection; the defaults when `None`.
        seed: moves initialization, order, held-out rows and dropout.
        max_tokens: cap on the tokens of one input; `None` uses the whole context.
        sampling: how often each of several tasks is drawn: a name, or a mapping with `kind` and its
            options; by size when `None`.
        out: the run's folder, resumed if it holds an interrupted run; `None` keeps nothing.
        progress: told of every update; a bar in a terminal or a notebook when `None`.

    Returns:
        The trained prompt with its score.

    Raises:
        SoftPromptsError: if the parts do not fit each other; the text says which and why.
    """
    require_backbone(backbone)
    found = map_of(backbone.model)
    place = {"device": str(backbone.device)} if found is None else {"device_map": found}
    recipe = {
        "backbone": {
            "name": backbone.name,
            "revision": backbone.revision,
            "dtype": str(backbone.dtype).removeprefix("torch."),
            **place,
        },
        **_tasks(task, max_tokens, sampling, seed),
        "readout": readout,
        "prompt": prompt or PromptConfig(),
        "adaptation": adaptation,
        "regularizers": list(regularizers),
        "training": training or TrainingConfig(),
        "seed": seed,
    }
    config = parse_run(recipe, "train")
    refuse(rate_problems(config), "train")
    folder = Path(out) if out is not None else None
    told = progress or UpdateBar()
    return Result.of(execute(config, backbone, task, folder=folder, progress=told))


def _tasks(
    task: Task | Mapping[str, Task],
    max_tokens: int | None,
    sampling: str | dict[str, Any] | None,
    seed: int,
) -> dict[str, Any]:
    """Return what a recipe says of one task, or of several.

    Raises:
        DataError: if something is no task.
        RecipeError: if a sampling is given for one task.
    """

    def section(one: Task, name: str = "task") -> dict[str, Any]:
        check_task(one, name)
        if not one.origin:  # a task of load_task was looked at there
            warn_of_shared_rows(one, one.format.name)
        origin = dict(one.origin) or {"name": "custom"}
        if origin.get("sample_seed") == seed:  # as in a recipe that does not name it
            origin["sample_seed"] = None
        return {**origin, "max_tokens": max_tokens}

    if not isinstance(task, Mapping):
        if sampling is not None:
            text = f"`sampling` must be left out for one task, but is {sampling!r}."
            raise RecipeError([text], "train")
        return {"task": section(task)}
    mixture: dict[str, Any] = {"tasks": {name: section(one, name) for name, one in task.items()}}
    return {"mixture": mixture if sampling is None else {**mixture, "sampling": sampling}}
