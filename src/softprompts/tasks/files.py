"""A task out of the user's own rows: jsonl, csv or parquet files, or a set on the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from softprompts.encoding.template_syntax import spell_chat, template_fields
from softprompts.errors import DataError, RecipeError
from softprompts.examples import WRITING, Example, TaskFormat
from softprompts.tasks.base import Task
from softprompts.tasks.files_options import FilesOptions, files_problems
from softprompts.tasks.reading import HubSplit, Item, collect, read_file, read_hub
from softprompts.tasks.request import TaskRequest
from softprompts.tasks.rows import Row, shown
from softprompts.tasks.templates import format_problems, template_problems, with_template

_VERSION = 1


def load_files(request: TaskRequest) -> Task:
    """Load a task from files below `data_dir`, or from a hub set.

    Raises:
        RecipeError: if options contradict each other; carries every problem.
        DataError: if files or rows are missing or wrong.
    """
    problems = files_problems(request.options)
    if request.option("hub_dataset") is not None and request.data_dir is not None:
        problems.append(
            f"`data_dir` must be left out when `hub_dataset` is given, but is {request.data_dir}."
        )
    if problems:
        raise RecipeError(problems, f"options of task {request.name!r}")
    options = FilesOptions.of(request.options)
    sources = {"train": options.train, "validation": options.validation}
    if options.held_out is not None:
        sources["held_out"] = options.held_out
    raw = {split: _read(request, options, place) for split, place in sources.items()}
    if not raw["train"][1]:
        raise DataError("must hold at least one row, but it is empty.", file=raw["train"][0])
    labels = _labels(options, *raw["train"], request.skip_bad_rows)
    form = with_template(_format(request.name, options, labels), request.template)
    converter = FilesConverter(options, form)
    rows: dict[str, tuple[Example, ...]] = {"held_out": ()}
    skipped = {}
    for split, (name, items) in raw.items():
        rows[split], num_skipped = collect(
            items, converter, name=name, skip_bad_rows=request.skip_bad_rows
        )
        if num_skipped:
            skipped[name] = num_skipped
    return Task(form, rows["train"], rows["held_out"], rows["validation"], skipped_rows=skipped)


class FilesConverter:
    """Turns rows into examples; one object per task."""

    def __init__(self, options: FilesOptions, form: TaskFormat) -> None:
        self._options = options
        self._form = form
        self._fields = tuple(
            dict.fromkeys(
                name for template in form.templates.values() for name in template_fields(template)
            )
        )

    def __call__(self, row: Row) -> Iterator[Example]:
        """Yield the one example of a row.

        Raises:
            DataError: if a field is missing or wrong.
        """
        if self._options.writes:
            yield self._written(row)
            return
        fields = {name: row.word(name) for name in self._fields}
        group = ""
        if self._options.group_field is not None:
            group = row.word(self._options.group_field)
        choices = tuple(self._choice(row, name) for name in self._options.choices_fields)
        answers = self._answers(row)
        references = tuple(choices[column] for column in answers) if choices else ()
        yield Example(fields, answers, choices, references, group, row.source)

    def _written(self, row: Row) -> Example:
        """Return the example of a row that brings texts to write."""
        if self._options.target_field is not None:
            fields = {name: row.word(name) for name in self._fields}
            references = row.references(self._options.target_field)
        else:
            fields, references = chat_turns(row, str(self._options.messages_field))
        return Example(fields, (0,) if references else (), (), references, "", row.source)

    def _choice(self, row: Row, name: str) -> str:
        text = row.word(name)
        if not text.strip():
            raise row.error(name, f"must be a choice to score, but is {text!r}.")
        return text

    def _answers(self, row: Row) -> tuple[int, ...]:
        field = self._options.label_field
        if not row.has_label(field):
            return ()
        label = _label_text(row, field)
        choices = self._options.choices_fields
        if choices:
            columns = {str(column): column for column in range(len(choices))}
            columns |= {name: column for column, name in enumerate(choices)}
        else:
            columns = {name: column for column, name in enumerate(self._form.labels)}
        if label not in columns:
            raise row.error(field, f"must be one of {', '.join(columns)}, but is {shown(label)}.")
        return (columns[label],)


def read_files_examples(
    path: Path, options: FilesOptions, form: TaskFormat
) -> tuple[Iterator[Item], FilesConverter]:
    """Return the rows of one more file of a loaded task, labelled or not, and their converter."""
    return read_file(path, needs_label=False), FilesConverter(options, form)


def _read(request: TaskRequest, options: FilesOptions, place: str) -> tuple[str, list[Item]]:
    if options.hub_dataset is not None:
        split = HubSplit(options.hub_dataset, options.hub_config, place, options.hub_revision)
        return str(split), list(read_hub(split, label_field=options.label_field))
    path = (request.data_dir or Path()) / place
    if Path(place).is_absolute() or ".." in Path(place).parts:
        raise DataError(
            f"a file of a task must lie below `data_dir`, but is {place!r}: let `data_dir` name a "
            "folder above it."
        )
    return str(path), list(read_file(path))


def chat_turns(row: Row, field: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the turns of a chat by who speaks and a number, and its last answer to write.

    The field holds a list of mappings with role and content.

    Raises:
        DataError: if it is none, or has no answer where the row must have one.
    """
    turns = [(turn.text("role"), turn.text("content")) for turn in row.children(field)]
    answers: tuple[str, ...] = ()
    if row.needs_label or (turns and turns[-1][0] == "assistant"):
        if not turns or turns[-1][0] != "assistant" or not turns[-1][1].strip():
            last = shown(row.values[field][-1]) if turns else "not there"
            raise row.error(field, f"must end with a text of the assistant, but that is {last}.")
        answers = (turns.pop()[1],)
    names = [f"{role}_{number}" for number, (role, _) in enumerate(turns, start=1)]
    problems = template_problems(WRITING, spell_chat(names), False) if turns else ["is empty."]
    if problems:
        raise row.error(field, f"must be a chat, but {problems[0]}")
    return {name: text for name, (_, text) in zip(names, turns, strict=True)}, answers


def _label_text(row: Row, field: str) -> str:
    value = row.value(field)
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | int):
        raise row.error(
            field, f"must be text, a whole number, true or false, but is {shown(value)}."
        )
    return row.word(field)


def _labels(
    options: FilesOptions, name: str, train: Sequence[Item], skip_bad_rows: bool
) -> tuple[str, ...]:
    """Return the labels: those given, or the distinct ones of `train`, sorted; numbers by size."""
    if options.choices_fields or options.writes:
        return ()
    if options.labels is not None:
        return options.labels
    found = set()
    bad: list[DataError] = []
    for item in train:
        try:
            if isinstance(item, DataError):
                raise item
            item.has_label(options.label_field)
            found.add(_label_text(item, options.label_field))
        except DataError as error:
            if not skip_bad_rows:
                raise
            bad.append(error)
    if len(found) < 2:
        skipped = f" {len(bad)} of {len(train)} rows were skipped, first {bad[0]}" if bad else ""
        raise DataError(
            f"training labels must be at least two, but are {sorted(found)}. Give `labels`."
            f"{skipped}",
            file=name,
            field=options.label_field,
        )
    is_numeric = all(label.lstrip("-").isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label) if is_numeric else 0, label)))


def _format(name: str, options: FilesOptions, labels: tuple[str, ...]) -> TaskFormat:
    verbalizer: dict[str, Any] = {label: label.replace("_", " ") for label in labels}
    if options.verbalizer is not None:
        verbalizer = dict(options.verbalizer)
    form = TaskFormat(name, _VERSION, labels, options.templates, verbalizer, options.metrics)
    problems = format_problems(form)
    for metric in options.metrics:
        if metric.startswith("multirc-") and len(labels) != 2:
            problems.append(f"metric {metric!r} must have two labels, but there are {len(labels)}.")
    if problems:
        raise RecipeError(problems, f"options of task {name!r}")
    return form
