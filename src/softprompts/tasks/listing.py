"""What `softprompts list tasks` shows."""

from __future__ import annotations

from dataclasses import dataclass

from softprompts.examples import TaskFormat
from softprompts.tasks.formats import FORMATS
from softprompts.tasks.registry import BUNDLED, TASKS


@dataclass(frozen=True)
class TaskSummary:
    """One line of the list of tasks.

    Attributes:
        name: registry name.
        summary: what the task asks.
        version: version of its format.
        metrics: metric names; empty where the user's options name them.
        labels: label names; empty where rows bring choices or options name them.
        reference: where the task comes from.
    """

    name: str
    summary: str
    version: int
    metrics: tuple[str, ...]
    labels: tuple[str, ...]
    reference: str


def list_tasks() -> tuple[TaskSummary, ...]:
    """Return a line per task, in the registry's order."""
    lines = []
    for entry in TASKS:
        form = task_format(entry.name)
        metrics, labels = (form.metrics, form.labels) if form else ((), ())
        lines.append(
            TaskSummary(entry.name, entry.summary, entry.version, metrics, labels, entry.reference)
        )
    return tuple(lines)


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
    if name in BUNDLED:
        from softprompts.tasks.bundled import FORMATS as BUNDLED_FORMATS

        return BUNDLED_FORMATS[name]
    return FORMATS.get(name)
