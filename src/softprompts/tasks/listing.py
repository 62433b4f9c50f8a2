"""What is known of a task without its rows."""

from __future__ import annotations

from softprompts.examples import TaskFormat
from softprompts.tasks.bundled.formats import FORMATS as BUNDLED_FORMATS
from softprompts.tasks.formats import FORMATS
from softprompts.tasks.registry import TASKS


def task_format(name: str) -> TaskFormat | None:
    """Return the format of a task without reading its rows.

    Args:
        name: registry name.

    Returns:
        The format, or None where it is only known once rows are read (`files`, third parties).

    Raises:
        UnknownNameError: if there is no such task.
    """
    TASKS.entry(name)
    return {**FORMATS, **BUNDLED_FORMATS}.get(name)
