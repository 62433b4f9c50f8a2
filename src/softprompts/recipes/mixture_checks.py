"""What is wrong with the task of a recipe, or with each task of a mixture."""

from __future__ import annotations

from collections.abc import Iterator

from softprompts.problems import Problem, show
from softprompts.recipes.schema import RunConfig, TaskConfig
from softprompts.tasks.files_options import files_problems
from softprompts.tasks.registry import BUNDLED

NO_TASK = Problem(("task", "mixture"), "`task` must be given, but is missing.")
"""A run needs a task, or a mixture of several."""


def mixture_problems(config: RunConfig) -> Iterator[Problem]:
    """Find what is wrong with the tasks of a run.

    Args:
        config: a run whose fields are valid.

    Yields:
        One problem per rule that is broken, with the place of the task in the recipe.
    """
    if config.task is not None and config.mixture is not None:
        yield Problem(
            ("task", "mixture"),
            f"`task` must be left out when `mixture` is given, but is {show(config.task.name)}.",
        )
    if config.task is None and config.mixture is None:
        yield NO_TASK
    for name, place in config.task_fields.items():
        yield from _task_problems(config.tasks[name], place)


def _task_problems(task: TaskConfig, place: str) -> Iterator[Problem]:
    """Find what is wrong between the fields of one task."""
    if task.shots is not None and task.shots_total is not None:
        yield Problem(
            (f"{place}.shots", f"{place}.shots_total"),
            f"`{place}.shots_total` must be left out when `{place}.shots` is set, "
            f"but is {task.shots_total} (with {task.shots} shots per class).",
        )
    if task.sample_seed is not None and task.shots is None and task.shots_total is None:
        yield Problem(
            (f"{place}.sample_seed",),
            f"`{place}.sample_seed` must be left out where neither `{place}.shots` nor "
            f"`{place}.shots_total` is set, but is {task.sample_seed}.",
        )
    if task.name in BUNDLED and task.data_dir is not None:
        yield Problem(
            (f"{place}.name", f"{place}.data_dir"),
            f"`{place}.data_dir` must be left out for {task.name}, which brings its own rows, "
            f"but is {show(task.data_dir)}.",
        )
    if task.name.startswith("fewglue/") and task.data_dir is None:
        yield Problem(
            (f"{place}.name", f"{place}.data_dir"),
            f"`{place}.data_dir` must be the folder with the files of {task.name}, but is null.",
        )
    if task.name == "files":
        for sentence in files_problems(task.options):
            text = f"`{place}.options`: {sentence.rstrip('.')}."
            yield Problem((f"{place}.name", f"{place}.options"), text)
