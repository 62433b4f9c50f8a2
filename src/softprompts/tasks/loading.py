"""Load a task by name: the one way in, for recipes and for code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from softprompts.collecting import uncollected
from softprompts.encoding.template import spell_turns, template_fields
from softprompts.errors import DataError, RecipeError
from softprompts.examples import Example
from softprompts.problems import misfits
from softprompts.registry import Entry, unknown_name
from softprompts.tasks.base import Task, TaskRequest
from softprompts.tasks.checking import warn_of_shared_rows
from softprompts.tasks.files import files_converter
from softprompts.tasks.formats import FORMATS
from softprompts.tasks.reading import collect, read_file
from softprompts.tasks.registry import TASKS
from softprompts.tasks.rows import Row, shown
from softprompts.tasks.sampling import class_name, sample_few_shot, sample_reported
from softprompts.tasks.superglue import convert_rows
from softprompts.tasks.templates import with_template


@uncollected()
def load_task(
    name: str,
    *,
    data_dir: str | Path | None = None,
    shots: int | None = None,
    shots_total: int | None = None,
    seed: int = 0,
    skip_bad_rows: bool = False,
    allow_missing_labels: bool = False,
    template: str | Sequence[Mapping[str, str]] | None = None,
    num_items: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Task:
    """Load a task. The parameters are the keys of a recipe's `task` section, so there are many.

    Args:
        name: registry name, such as `superglue/cb`, `bundled/sentiment` or `files`.
        data_dir: folder with the task's files; None asks the hub where the task has a home there.
        shots: training rows to draw per class; None keeps all.
        shots_total: training rows to draw in all; None keeps all.
        seed: the run's seed, for the draw.
        skip_bad_rows: whether bad rows are counted in `Task.skipped_rows` instead of refused.
        allow_missing_labels: whether labels without a training row are allowed.
        template: how a row becomes text, whatever the readout, or the turns of a chat; None keeps
            the task's own templates.
        num_items: rows of the reported split to keep, drawn once whatever the seed; None keeps all.
        options: the task's own options.

    Returns:
        The task.

    Raises:
        UnknownNameError: if there is no such task.
        RecipeError: if options are unknown, wrong or contradict each other.
        DataError: if files or rows are missing or wrong, a label has no training row, or rows lack
            a field of the template.
    """
    if isinstance(template, list | tuple):
        try:
            template = spell_turns(template)
        except DataError as error:
            raise RecipeError([str(error)], "load_task") from None
    given = {**locals(), "data_dir": str(data_dir) if isinstance(data_dir, Path) else data_dir}
    if problems := misfits(_Arguments, given):
        raise RecipeError(problems, "load_task")
    assert template is None or isinstance(template, str)
    entry = TASKS.entry(name)
    folder = None if data_dir is None else _folder(data_dir)
    checked = check_options(entry, options or {})
    task = TASKS.load(name)(TaskRequest(name, folder, skip_bad_rows, checked, template))
    if template is not None:
        _check_fields(task, template)
        task = replace(task, format=with_template(task.format, template))
    if not allow_missing_labels:
        _check_labels(task)
    warn_of_shared_rows(task, name)
    train = sample_few_shot(
        task.train, task.format, shots=shots, shots_total=shots_total, seed=seed
    )
    origin = {
        "name": name,
        "data_dir": None if data_dir is None else str(data_dir),
        "shots": shots,
        "shots_total": shots_total,
        "sample_seed": None if shots is None and shots_total is None else seed,
        "allow_missing_labels": allow_missing_labels,
        "skip_bad_rows": skip_bad_rows,
        "template": template,
        "num_items": num_items,
        "options": dict(options or {}),
    }
    validation = sample_reported(task.validation, num_items)
    return replace(task, train=train, validation=validation, origin=origin)


class _Arguments(BaseModel):
    """The types of what `load_task` takes; see there."""

    model_config = ConfigDict(strict=True)

    name: str
    data_dir: str | None
    shots: int | None
    shots_total: int | None
    seed: int = Field(ge=0)
    skip_bad_rows: bool
    allow_missing_labels: bool
    template: str | None
    num_items: int | None
    options: dict[str, Any] | None


def refuse_custom(request: TaskRequest) -> Task:
    """Refuse to load a task that was built by hand: only its own program has the rows."""
    raise DataError(
        f"task must be one that can be loaded by name, but is {request.name!r}: its rows were "
        "built in a program. Pass that Task object."
    )


def load_examples(
    task: Task,
    path: str | Path,
    *,
    skip_bad_rows: bool = False,
    options: Mapping[str, Any] | None = None,
) -> tuple[tuple[Example, ...], int]:
    """Read one more file in the form of a task's own rows, with or without labels.

    `options` are those that `files` was loaded with. The number of rows left out is returned too.
    """
    name, path = task.format.name, Path(path)
    if name == "files":
        checked = check_options(TASKS.entry(name), options or {})
        convert = files_converter(checked, task.format)
        return collect(read_file(path, needs_label=False), convert, str(path), skip_bad_rows)
    if options:
        raise DataError(f"`options` must be left out for {name}, but are {dict(options)}.")
    items = read_file(path, needs_label=False)
    if name in FORMATS:
        return convert_rows(task.format, items, str(path), skip_bad_rows)
    fields = template_fields(next(iter(task.format.templates.values())))

    def own_row(row: Row) -> list[Example]:
        values = {field: row.text(field) for field in fields}
        if not task.format.is_writing:
            return [Example(values, row.label("label", task.format.labels), source=row.source)]
        texts = row.references("references")
        return [Example(values, (0,) if texts else (), (), texts, source=row.source)]

    return collect(items, own_row, str(path), skip_bad_rows)


def check_options(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a registry entry with their defaults, or raise every problem."""
    try:
        return entry.schema(**options).model_dump()
    except ValidationError as error:
        problems = [
            _problem(".".join(map(str, e["loc"])), e["type"], e["msg"], e["input"], entry)
            for e in error.errors()
        ]
        raise RecipeError(problems, f"options of task {entry.name!r}") from error


def _problem(place: str, kind: str, message: str, value: object, entry: Entry) -> str:
    if kind == "extra_forbidden":
        return unknown_name("option", place, entry.options)
    if kind == "missing":
        return f"`{place}` must be given, but is missing."
    return f"`{place}` must fit its type and range, but is {shown(value)}: {message}."


def _folder(data_dir: str | Path) -> Path:
    try:
        return Path(data_dir).expanduser()
    except RuntimeError as error:  # `~name` of a user that there is not
        raise DataError(
            f"`data_dir` must be a folder, but is {str(data_dir)!r}: {error}"
        ) from error


def _check_fields(task: Task, template: str) -> None:
    """Check that the rows have what a template names."""
    names = template_fields(template)
    if not names:
        raise DataError(f"`template` must name at least one field, but is {template!r}.")
    for row in (*task.train[:1], *task.held_out[:1], *task.validation[:1]):
        for name in names:
            if name not in row.fields:
                raise DataError(
                    f"template field must be one of {', '.join(row.fields)}, but is {name!r}.",
                    file=row.source or None,
                    field=name,
                )


def _check_labels(task: Task) -> None:
    seen = {column for row in task.train for column in row.answers}
    missing = [
        class_name(task.format, column)
        for column in range(len(task.format.labels))
        if column not in seen
    ]
    if missing:
        raise DataError(
            f"training rows of {task.format.name} must have every label, but have none with "
            f"{', '.join(missing)}. To train all the same, set `allow_missing_labels`."
        )
