"""A task out of the user's own rows: jsonl, csv or parquet files, or a set on the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompts.encoding.template import spell_chat, template_fields
from softprompts.errors import DataError, RecipeError
from softprompts.examples import WRITING, Example, TaskFormat
from softprompts.tasks.base import Task, TaskRequest
from softprompts.tasks.files_options import all_templates, files_problems, writes
from softprompts.tasks.reading import (
    Convert,
    HubSplit,
    Item,
    build_task,
    collect,
    read_file,
    read_hub,
)
from softprompts.tasks.rows import Row, shown
from softprompts.tasks.templates import format_problems, template_problems, with_template

_VERSION = 1


def load_files(request: TaskRequest) -> Task:
    """Load a task from files below `data_dir`, or from a hub set.

    Options that contradict each other are a `RecipeError`, what is wrong in files a `DataError`.
    """
    options = request.options
    problems = files_problems(options)
    if options["hub_dataset"] is not None and request.data_dir is not None:
        problems.append(
            f"`data_dir` must be left out when `hub_dataset` is given, but is {request.data_dir}."
        )
    if problems:
        raise RecipeError(problems, f"options of task {request.name!r}")
    places = {split: options[split] for split in ("train", "validation", "held_out")}
    raw = {split: _read(request, place) for split, place in places.items() if place is not None}
    if not raw["train"][1]:
        raise DataError("must hold at least one row, but it is empty.", file=raw["train"][0])
    labels = _labels(options, *raw["train"], request.skip_bad_rows)
    form = with_template(_format(request.name, options, labels), request.template)
    convert = files_converter(options, form)
    return build_task(
        form, raw, lambda items, name: collect(items, convert, name, request.skip_bad_rows)
    )


def files_converter(options: Mapping[str, Any], form: TaskFormat) -> Convert:
    """Return what makes the example of a row, as the options of a loaded task say."""
    templates = form.templates.values()
    names = tuple(dict.fromkeys(name for text in templates for name in template_fields(text)))

    def convert(row: Row) -> list[Example]:
        if options["messages_field"] is not None:
            fields, references = chat_turns(row, options["messages_field"])
            return [Example(fields, (0,) if references else (), (), references, "", row.source)]
        fields = {name: row.word(name) for name in names}
        if options["target_field"] is not None:
            references = row.references(options["target_field"])
            return [Example(fields, (0,) if references else (), (), references, "", row.source)]
        group = "" if options["group_field"] is None else row.word(options["group_field"])
        choices = tuple(_choice(row, name) for name in options["choices_fields"] or ())
        answers = _answers(row, options, form)
        references = tuple(choices[column] for column in answers) if choices else ()
        return [Example(fields, answers, choices, references, group, row.source)]

    return convert


def _choice(row: Row, name: str) -> str:
    text = row.word(name)
    if not text.strip():
        raise row.error(name, f"must be a choice to score, but is {text!r}.")
    return text


def _answers(row: Row, options: Mapping[str, Any], form: TaskFormat) -> tuple[int, ...]:
    field, choices = options["label_field"], options["choices_fields"] or ()
    if not row.has_label(field):
        return ()
    label = _label_text(row, field)
    columns = {str(column): column for column in range(len(choices))}
    columns |= {name: column for column, name in enumerate(choices or form.labels)}
    if label not in columns:
        raise row.error(field, f"must be one of {', '.join(columns)}, but is {shown(label)}.")
    return (columns[label],)


def _read(request: TaskRequest, place: str) -> tuple[str, list[Item]]:
    options = request.options
    if options["hub_dataset"] is not None:
        revision = options["hub_revision"]
        split = HubSplit(options["hub_dataset"], options["hub_config"], place, revision)
        return str(split), list(read_hub(split, label_field=options["label_field"]))
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
    options: Mapping[str, Any], name: str, train: Sequence[Item], skip_bad_rows: bool
) -> tuple[str, ...]:
    """Return the labels: those given, or the distinct ones of `train`, sorted; numbers by size."""
    if options["choices_fields"] or writes(options):
        return ()
    if options["labels"] is not None:
        return tuple(options["labels"])
    field, found = options["label_field"], set()
    bad: list[DataError] = []
    for item in train:
        try:
            if isinstance(item, DataError):
                raise item
            item.has_label(field)
            found.add(_label_text(item, field))
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
            field=field,
        )
    is_numeric = all(label.lstrip("-").isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label) if is_numeric else 0, label)))


def _format(name: str, options: Mapping[str, Any], labels: tuple[str, ...]) -> TaskFormat:
    verbalizer: dict[str, Any] = {label: label.replace("_", " ") for label in labels}
    if options["verbalizer"] is not None:
        verbalizer = dict(options["verbalizer"])
    templates, metrics = all_templates(options), tuple(options["metrics"])
    form = TaskFormat(name, _VERSION, labels, templates, verbalizer, metrics)
    problems = format_problems(form)
    for metric in metrics:
        if metric.startswith("multirc-") and len(labels) != 2:
            problems.append(f"metric {metric!r} must have two labels, but there are {len(labels)}.")
    if problems:
        raise RecipeError(problems, f"options of task {name!r}")
    return form
