"""SuperGLUE: the original jsonl files, or parquet tables from the Hugging Face hub.

Reference:
    Wang et al. 2019, arXiv 1905.00537.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from softprompts.errors import DataError
from softprompts.examples import Example, TaskFormat
from softprompts.tasks.base import Task
from softprompts.tasks.formats import FOLDERS, FORMATS
from softprompts.tasks.reading import HubSplit, Item, collect, read_file, read_hub
from softprompts.tasks.request import TaskRequest, find_folder
from softprompts.tasks.superglue_rows import CONVERTERS

REPOSITORY = "aps/super_glue"
"""The hub set read when a request names neither a folder nor a set."""

_CONFIGS = {short: short for short in FOLDERS} | {"wsc": "wsc.fixed"}


def load_superglue(request: TaskRequest) -> Task:
    """Load a SuperGLUE task: `data_dir` holds `CB/{train,val}.jsonl` or `superglue/CB/…`.

    Without it the hub is asked, with the options `repository` and `revision`.

    Raises:
        DataError: if files or rows are missing or wrong.
    """
    form = FORMATS[request.name]
    short = request.name.rpartition("/")[2]
    if request.data_dir is None:
        return _from_hub(request, form, short)
    for key in ("repository", "revision"):
        if request.option(key) is not None:
            raise DataError(
                f"option `{key}` must be left out when `data_dir` is given, but is "
                f"{request.option(key)!r}."
            )
    folder = find_folder(request, "superglue", FOLDERS[short])
    return task_from_files(
        request, form, {"train": folder / "train.jsonl", "validation": folder / "val.jsonl"}
    )


def task_from_files(request: TaskRequest, form: TaskFormat, files: Mapping[str, Path]) -> Task:
    """Load a task of the SuperGLUE family from the jsonl file of each split.

    Its reported split is named after its file.

    Raises:
        DataError: if files or rows are missing or wrong.
    """
    readers = {split: (str(path), read_file(path)) for split, path in files.items()}
    return _task(request, form, readers, validation_name=files["validation"].stem)


def convert_rows(
    items: Iterable[Item], form: TaskFormat, name: str, skip_bad_rows: bool = False
) -> tuple[tuple[Example, ...], int]:
    """Turn rows of a SuperGLUE task into examples, as `collect` does.

    Raises:
        DataError: if a row is bad, no row is left, or two questions share a number.
    """
    convert = CONVERTERS[form.name.rpartition("/")[2]]
    examples, num_skipped = collect(
        items, lambda row: convert(row, form), name=name, skip_bad_rows=skip_bad_rows
    )
    first: dict[str, Example] = {}
    for example in examples:
        other = first.setdefault(example.group, example) if example.group else example
        if _query(other) != _query(example):
            raise DataError(
                f"{example.source}: passage/question number must be used once, but "
                f"{example.group} stands for another question at {other.source}."
            )
    return examples, num_skipped


def _query(example: Example) -> list[str]:
    return [text for name, text in example.fields.items() if name != "answer"]


def _from_hub(request: TaskRequest, form: TaskFormat, short: str) -> Task:
    repository = request.option("repository") or REPOSITORY
    readers = {}
    for split in ("train", "validation"):
        source = HubSplit(repository, _CONFIGS[short], split, request.option("revision"))
        readers[split] = (str(source), read_hub(source, labels=form.labels))
    return _task(request, form, readers, validation_name="val")


def _task(
    request: TaskRequest,
    form: TaskFormat,
    readers: Mapping[str, tuple[str, Iterable[Item]]],
    validation_name: str,
) -> Task:
    rows: dict[str, tuple[Example, ...]] = {"held_out": ()}
    skipped: dict[str, int] = {}
    for split, (name, items) in readers.items():
        rows[split], num_skipped = convert_rows(items, form, name, request.skip_bad_rows)
        if num_skipped:
            skipped[name] = num_skipped
    return Task(form, rows["train"], rows["held_out"], rows["validation"], validation_name, skipped)
