"""The way from a request to the tasks that come with the library."""

from __future__ import annotations

from softprompts.errors import DataError
from softprompts.tasks.base import Task
from softprompts.tasks.request import TaskRequest


def load_bundled_task(request: TaskRequest) -> Task:
    """Load a bundled task.

    Args:
        request: its name; `data_dir` must be None.

    Returns:
        The task.

    Raises:
        DataError: if `data_dir` is given.
    """
    from softprompts.tasks.bundled import load_bundled

    if request.data_dir is not None:
        raise DataError(
            f"`data_dir` must be left out for {request.name}, which brings its own rows, but is "
            f"{request.data_dir}."
        )
    return load_bundled(request.name)
