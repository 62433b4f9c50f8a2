"""Three small English tasks that come with the library: no download, no licence question.

Every sentence is ours. See docs/tasks/bundled.md for how the rows were made; they lie beside this
file, in the form of a user's own files.
"""

from __future__ import annotations

import json
from importlib.resources import files

from softprompts.errors import DataError, UnknownNameError
from softprompts.examples import Example, TaskFormat
from softprompts.registry import unknown_name
from softprompts.tasks.base import Task, TaskRequest
from softprompts.tasks.bundled.formats import FORMATS

__all__ = ["FORMATS", "load_bundled"]


def load_bundled_task(request: TaskRequest) -> Task:
    """Load a bundled task."""
    if request.data_dir is not None:
        raise DataError(
            f"`data_dir` must be left out for {request.name}, which brings its own rows, but is "
            f"{request.data_dir}."
        )
    return load_bundled(request.name)


def load_bundled(name: str) -> Task:
    """Load one of the tasks that come with the library: the same rows on every machine.

    Raises:
        UnknownNameError: if there is no such task.

    Example:
        >>> len(load_bundled("bundled/sentiment").train)
        480
    """
    if name not in FORMATS:
        raise UnknownNameError(unknown_name("bundled task", name, FORMATS))
    form = FORMATS[name]
    return Task(form, _examples(form, "train"), (), _examples(form, "validation"))


def _examples(form: TaskFormat, split: str) -> tuple[Example, ...]:
    file = files(__package__) / f"{form.name.removeprefix('bundled/')}-{split}.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(
        Example(
            references=tuple(row.pop("references", ())),
            answers=(0 if form.is_writing else form.labels.index(row.pop("label")),),
            fields=row,
            source=f"{form.name} {split}:{number}",
        )
        for number, row in enumerate(rows, start=1)
    )
