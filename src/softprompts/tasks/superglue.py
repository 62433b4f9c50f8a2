"""SuperGLUE and FewGLUE: the original jsonl files, or parquet tables from the Hugging Face hub.

FewGLUE has 32 training rows a task, 32 more for model selection, and SuperGLUE's validation split.
The 32 training rows of WSC are all true: the set was built for generative scoring. A classifier
cannot learn from them, so loading it needs `allow_missing_labels`. ReCoRD comes without a
validation file: `dev32` is its reported split.

Reference:
    SuperGLUE: Wang et al. 2019, arXiv 1905.00537. FewGLUE: Schick and Schütze 2021, arXiv
    2009.07118; `dev32`: Liu et al. 2021, arXiv 2103.10385.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from softprompts.errors import DataError
from softprompts.examples import Example, TaskFormat
from softprompts.storage import is_folder
from softprompts.tasks.base import Task, TaskRequest
from softprompts.tasks.formats import FOLDERS, FORMATS
from softprompts.tasks.reading import HubSplit, Item, build_task, collect, read_file, read_hub
from softprompts.tasks.superglue_rows import CONVERTERS

REPOSITORY = "aps/super_glue"
"""The hub set read when a request names neither a folder nor a set."""

_CONFIGS = {short: short for short in FOLDERS} | {"wsc": "wsc.fixed"}


def load_superglue(request: TaskRequest) -> Task:
    """Load a SuperGLUE task: `data_dir` holds `CB/{train,val}.jsonl` or `superglue/CB/…`.

    Without it the hub is asked, with the options `repository` and `revision`.
    """
    repository, revision = (request.options.get(key) for key in ("repository", "revision"))
    if request.data_dir is None:
        form, config = FORMATS[request.name], _CONFIGS[_short(request.name)]
        splits = {}
        for name in ("train", "validation"):
            split = HubSplit(repository or REPOSITORY, config, name, revision)
            splits[name] = (str(split), read_hub(split, labels=form.labels))
        return _task(request, splits, "val")
    for key, value in (("repository", repository), ("revision", revision)):
        if value is not None:
            raise DataError(
                f"option `{key}` must be left out when `data_dir` is given, but is {value!r}."
            )
    return _from_files(request, {"train": "train", "validation": "val"})


def load_fewglue(request: TaskRequest) -> Task:
    """Load a FewGLUE task: `data_dir` holds `CB/{train,dev32,val}.jsonl` or `fewglue/CB/…`."""
    if _short(request.name) == "record":
        return _from_files(request, {"train": "train", "validation": "dev32"})
    return _from_files(request, {"train": "train", "held_out": "dev32", "validation": "val"})


def convert_rows(
    form: TaskFormat, items: Iterable[Item], name: str, skip_bad_rows: bool = False
) -> tuple[tuple[Example, ...], int]:
    """Turn rows into examples as `collect` does, and refuse two questions of one number."""
    convert = CONVERTERS[_short(form.name)]
    examples, num_skipped = collect(items, lambda row: convert(row, form), name, skip_bad_rows)
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


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _from_files(request: TaskRequest, names: Mapping[str, str]) -> Task:
    """Load the jsonl file of each split; the reported one is named after its file."""
    folder = _folder(request)
    paths = {split: folder / f"{name}.jsonl" for split, name in names.items()}
    splits = {split: (str(path), read_file(path)) for split, path in paths.items()}
    return _task(request, splits, names["validation"])


def _folder(request: TaskRequest) -> Path:
    """Return `data_dir/suite/folder` or else `data_dir/folder`."""
    suite, _, short = request.name.partition("/")
    folder = FOLDERS[short]
    if request.data_dir is None:
        raise DataError(
            f"`data_dir` must be the folder that holds {folder}, but is None for {request.name}."
        )
    tried = (request.data_dir / suite / folder, request.data_dir / folder)
    for path in tried:
        if is_folder(path):
            return path
    raise DataError(
        f"`data_dir` must hold the folder of {request.name}, but neither {tried[0]} nor "
        f"{tried[1]} is a folder."
    )


def _task(
    request: TaskRequest, splits: Mapping[str, tuple[str, Iterable[Item]]], validation_name: str
) -> Task:
    form, skips = FORMATS[request.name], request.skip_bad_rows
    return build_task(
        form,
        splits,
        lambda items, name: convert_rows(form, items, name, skips),
        validation_name,
    )
