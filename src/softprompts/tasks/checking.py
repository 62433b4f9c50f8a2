"""What a task that a program built must be: checked once, before anything is trained on it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from softprompts.errors import DataError, SoftPromptsWarning
from softprompts.examples import Example, TaskFormat
from softprompts.metrics.writing import check_metrics
from softprompts.problems import misfits
from softprompts.tasks.base import Task
from softprompts.tasks.rows import refuse_wrong_texts, shown, text_problem
from softprompts.tasks.templates import label_problems

Texts = tuple[str, ...] | list[str]


class Format(BaseModel):
    """The types of a `TaskFormat`; see there."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    version: int
    labels: Texts
    templates: dict[str, str]
    verbalizer: dict[str, str]
    metrics: Texts = Field(min_length=1)
    reference: str = ""
    instruction: str = ""


def check_task(task: Task, name: str = "task") -> None:
    """Check a task: the types of its format, its labels, and every row.

    Templates and label words are checked where a readout takes them.
    """
    if not isinstance(task, Task):
        raise DataError(
            f"`{name}` must be what load_task returns, or a Task, but is {shown(task)}."
        )
    form = task.format
    if not isinstance(form, TaskFormat):
        raise DataError(f"must be a TaskFormat, but is {shown(form)}.", file=name, field="format")
    problems = misfits(Format, vars(form)) or label_problems(form)
    if problems:
        raise DataError(" ".join(problems), file=f"format of {name}")
    if form.is_writing:
        check_metrics(form.metrics)
    for split in ("train", "held_out", "validation"):
        rows = getattr(task, split)
        if not isinstance(rows, tuple | list):
            raise DataError(
                f"must be a tuple of rows, but is {shown(rows)}.", file=name, field=split
            )
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Example):
                reason = f"must be an Example, but is {shown(row)}."
                raise DataError(reason, file=name, field=f"{split}[{number - 1}]")
            _check_row(row, form, row.source or f"{split} row {number}", split == "train")


def warn_of_shared_rows(task: Task, name: str) -> None:
    """Warn where reported rows stand among the training rows, before some are drawn from these.

    Their score says too much.
    """

    def content(row: Example) -> tuple[Any, ...]:
        return tuple(sorted(row.fields.items())), tuple(row.choices)

    trained = {content(row) for row in task.train}
    both = [row for row in task.validation if content(row) in trained]
    if both:
        text = (
            f"{len(both)} of {len(task.validation)} validation rows of {name} stand among its "
            f"training rows too, such as {both[0].source or shown(dict(both[0].fields))}: a score "
            "on rows that were trained on says too much. Take them out of one of the two."
        )
        warnings.warn(text, SoftPromptsWarning, stacklevel=2)


def _check_row(row: Example, form: TaskFormat, place: str, needs_answer: bool) -> None:
    """Check one row."""

    def require(is_right: bool, field: str, wanted: str) -> None:
        if not is_right:
            value = shown(getattr(row, field))
            raise DataError(f"must be {wanted}, but is {value}.", file=place, field=field)

    require(isinstance(row.fields, Mapping), "fields", "a mapping")
    refuse_wrong_texts(row.fields, place)
    for field in ("choices", "references", "answers"):
        require(isinstance(getattr(row, field), tuple | list), field, "a tuple")
    for field in ("choices", "references"):
        texts = getattr(row, field)
        require(not any(map(text_problem, texts)), field, "a tuple of texts")
    require(isinstance(row.group, str), "group", "text")
    if form.has_choices:
        require(len(row.choices) > 0, "choices", "at least one text, as the task has no labels")
    else:
        brought = "texts to write" if form.is_writing else "labels"
        require(not row.choices, "choices", f"left out, as the task has {brought}")
    if form.is_writing:
        is_right = all(map(str.strip, row.references))
        require(is_right, "references", "texts to write that are not blank")
        is_right = len(row.answers) == min(len(row.references), 1)
        require(is_right, "answers", "column 0 where there are references, else none")
    most = 0 if form.is_writing else len(form.labels or row.choices) - 1
    is_right = all(type(one) is int and 0 <= one <= most for one in row.answers)
    require(is_right, "answers", f"columns from 0 to {most}")
    require(not needs_answer or len(row.answers) > 0, "answers", "at least one column to train on")


def check_labelled(examples: Sequence[Example], form: TaskFormat) -> None:
    """Raise a `DataError` where something is no example, or an answer no column of it."""
    for place, example in enumerate(examples):
        if not isinstance(example, Example) or not isinstance(example.answers, tuple | list):
            reason = f"must be an Example with its answers, but is {shown(example)}."
            raise DataError(reason, file=f"example {place + 1}")
        names = example.choices if form.has_choices else form.labels
        source = example.source or f"example {place + 1}"
        if not example.answers and not example.references:
            raise DataError("must be given, but are none.", file=source, field="answers")
        wrong = [one for one in example.answers if one not in range(len(names))]
        if wrong and not form.is_writing:
            raise DataError(
                f"must be places of {', '.join(names)}, from 0 to {len(names) - 1}, but has "
                f"{wrong[0]!r}.",
                file=source,
                field="answers",
            )


def check_choices(example: Example) -> None:
    """Raise a `DataError` where two choices of a row are the same text."""
    if len(set(example.choices)) < len(example.choices):
        raise DataError(
            f"must be different texts, but are {example.choices}.",
            file=example.source or None,
            field="choices",
        )
