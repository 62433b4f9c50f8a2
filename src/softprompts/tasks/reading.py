"""Rows out of jsonl, csv and parquet files and hub sets, and examples out of rows.

A reader yields rows one by one. What is wrong with a single row is yielded too, as a `DataError`,
so that `collect` can refuse or count it; what is wrong with a whole file is raised.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from softprompts import storage
from softprompts.errors import DataError
from softprompts.examples import Example, TaskFormat
from softprompts.tasks.base import Task
from softprompts.tasks.rows import Row, shown, shown_plain

MOST_ROWS = 5_000_000
"""Most rows of a file: as many as fit in memory beside a model."""
_BATCH_ROWS = 1024

Item = Row | DataError
Convert = Callable[[Row], Iterable[Example]]


@dataclass(frozen=True)
class HubSplit:
    """One split of a set on the Hugging Face hub, or of a local folder laid out like one.

    Without a configuration it is the default one, without a revision the newest.
    """

    repository: str
    config: str | None
    split: str
    revision: str | None = None

    def __str__(self) -> str:
        config = "" if self.config is None else f"/{self.config}"
        return f"{self.repository}{config}[{self.split}]"


def read_file(path: Path, *, needs_label: bool = True) -> Iterator[Item]:
    """Yield the rows of a `.jsonl`, `.json`, `.csv` or `.parquet` file, or what is wrong there."""
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    readers[".json"] = _read_json
    if not storage.is_file(path):
        kind = "a folder" if storage.is_folder(path) else "missing"
        raise DataError(f"must be a file, but is {kind}.", file=path)
    if path.suffix.lower() not in readers:
        raise DataError(
            f"must end in one of {', '.join(readers)}, but ends in {path.suffix!r}.", file=path
        )
    yield from readers[path.suffix.lower()](path, needs_label)


def read_hub(
    split: HubSplit, *, label_field: str = "label", labels: Iterable[str] = ()
) -> Iterator[Item]:
    """Yield the rows of a hub split through `datasets`; needs a network or a filled cache.

    Integer labels become names: those of the set's own `ClassLabel` feature, else those given, in
    the set's order. Rows are numbered from 1.
    """
    import datasets

    try:
        table = datasets.load_dataset(
            split.repository, split.config, split=split.split, revision=split.revision
        )
    except Exception as error:  # any of a dozen kinds, by cause and version
        reason = shown_plain(f"{type(error).__name__}: {error}")
        raise DataError(
            f"hub set {split} must load, but does not ({reason}). "
            "Offline, pass `data_dir` with the task's files."
        ) from error
    names = list(getattr(table.features.get(label_field), "names", None) or labels)
    for number, values in enumerate(table, start=1):
        value = values.get(label_field)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            values = {**values, label_field: names[value]}
        yield Row(values, str(split), number)


def collect(
    items: Iterable[Item], convert: Convert, name: str, skip_bad_rows: bool = False
) -> tuple[tuple[Example, ...], int]:
    """Turn rows into examples; return them and the number of rows left out.

    `convert` makes the examples of a row, and raises `DataError` for a bad one. That is raised
    again unless such rows are to be skipped; no example is an error in either case.
    """
    examples: list[Example] = []
    num_skipped = 0
    first: DataError | None = None
    for number, item in enumerate(items, start=1):
        _check_number(number, name)
        try:
            if isinstance(item, DataError):
                raise item
            examples.extend(list(convert(item)))
        except DataError as error:
            if not skip_bad_rows:
                raise
            num_skipped += 1
            first = first or error
    if not examples:
        why = f"all {num_skipped} rows are bad, first {first}" if first else "it is empty"
        raise DataError(f"must hold at least one row, but {why}.".replace("..", "."), file=name)
    return tuple(examples), num_skipped


def build_task(
    form: TaskFormat,
    splits: Mapping[str, tuple[str, Iterable[Item]]],
    convert_rows: Callable[[Iterable[Item], str], tuple[tuple[Example, ...], int]],
    validation_name: str = "validation",
) -> Task:
    """Return a task out of what a reader yields of each split, with the split's name in messages.

    `convert_rows` makes examples of one split, as `collect` does.
    """
    rows: dict[str, Any] = {"held_out": ()}
    skipped = {}
    for split, (name, items) in splits.items():
        rows[split], num_skipped = convert_rows(items, name)
        if num_skipped:
            skipped[name] = num_skipped
    return Task(form, **rows, validation_name=validation_name, skipped_rows=skipped)


def _bytes(path: Path) -> bytes:
    try:
        return storage.read_file(path).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(
            f"must be readable, but is not: {error.strerror or error}.", file=path
        ) from error


def _read_jsonl(path: Path, needs_label: bool) -> Iterator[Item]:
    for line, raw in enumerate(_bytes(path).rstrip().split(b"\n"), start=1):
        if line == 1 and not raw:
            return
        try:
            yield Row(_parse_object(raw), str(path), line, needs_label=needs_label)
        except _BadRowError as error:
            yield DataError(str(error), file=path, line=line)


class _BadRowError(ValueError):
    """What is wrong with a row, without its place."""


def _read_json(path: Path, needs_label: bool) -> Iterator[Item]:
    """Yield the rows of a list of objects, or the questions of a file in the form of SQuAD's."""
    raw = _bytes(path)
    try:
        value = _parse(raw) if raw.strip() else []
    except _BadRowError as error:
        raise DataError(str(error), file=path) from error
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = list(_questions(Row(value, str(path), 1)))
    if not isinstance(value, list):
        raise DataError(f"must be a list of JSON objects, but is {shown(value)}.", file=path)
    for number, row in enumerate(value, start=1):
        if isinstance(row, dict):
            yield Row(row, str(path), number, needs_label=needs_label)
        else:
            reason = f"must be one JSON object, but is {shown(row)}."
            yield DataError(reason, file=path, line=number)


def _questions(whole: Row) -> Iterator[dict[str, Any]]:
    """Yield the questions of articles and paragraphs, as the hub's tables have them."""
    for article in whole.children("data"):
        for paragraph in article.children("paragraphs"):
            context = paragraph.text("context")
            for question in paragraph.children("qas"):
                answers = question.children("answers") if "answers" in question.values else []
                texts = {"text": [answer.text("text") for answer in answers]}
                yield {**question.values, "context": context, "answers": texts}


def _parse_object(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        raise _BadRowError("must be one JSON object, but is a blank line.")
    value = _parse(raw)
    if not isinstance(value, dict):
        raise _BadRowError(f"must be one JSON object, but is {shown(value)}.")
    return value


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _BadRowError(
            f"must be UTF-8, but has byte {raw[error.start]:#04x} at {error.start}."
        ) from error
    except json.JSONDecodeError as error:
        raise _BadRowError(
            f"must be one JSON object, but breaks at column {error.colno}: {error.msg}."
        ) from error
    except _BadRowError:
        raise
    except (ValueError, RecursionError) as error:
        raise _BadRowError(f"must be one JSON object, but cannot be read: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _BadRowError(f"field names must be distinct, but `{key}` comes twice.")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _BadRowError(f"numbers must be finite, but one is {name}.")


def _read_csv(path: Path, needs_label: bool) -> Iterator[Item]:
    raw = _bytes(path).rstrip(b"\r\n")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"must be UTF-8, but has byte {raw[error.start]:#04x}.", file=path, line=line
        ) from error
    if not text:
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            start, line = line, reader.line_num + 1
            if columns is None:
                columns = _distinct(cells, path)
            elif len(cells) != len(columns):
                yield DataError(
                    f"must have {len(columns)} cells, as the header has, but has {len(cells)}.",
                    file=path,
                    line=start,
                )
            else:
                values = dict(zip(columns, cells, strict=True))
                yield Row(values, str(path), start, needs_label=needs_label)
    except csv.Error as error:
        raise DataError(f"must be CSV, but breaks here: {error}.", file=path, line=line) from error


def _distinct(columns: list[str], path: Path) -> list[str]:
    if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
        raise DataError(
            f"cells must stand between commas, but the header is {columns[0]!r}.", file=path, line=1
        )
    for column in columns:
        if not column.strip():
            raise DataError("column names must not be blank, but one is.", file=path, line=1)
        if columns.count(column) > 1:
            raise DataError(
                f"column names must be distinct, but {column!r} comes twice.", file=path, line=1
            )
    return columns


def _read_parquet(path: Path, needs_label: bool) -> Iterator[Item]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        with file:
            _distinct(list(file.schema_arrow.names), path)
            _check_number(file.metadata.num_rows, path)
            number = num_bytes = 0
            for batch in file.iter_batches(_BATCH_ROWS):
                num_bytes += batch.nbytes  # a file of few bytes may repeat one long text
                if num_bytes > storage.MOST_BYTES:
                    raise DataError(
                        f"must hold at most {storage.MOST_BYTES} bytes, but holds more.", file=path
                    )
                columns = {
                    name: _column(column, name, path)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                for place in range(batch.num_rows):
                    number += 1
                    values = {name: column[place] for name, column in columns.items()}
                    yield Row(values, str(path), number, needs_label=needs_label)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"must be a parquet file, but cannot be read: {shown_plain(str(error))}", file=path
        ) from error


def _check_number(num_rows: int, name: object) -> None:
    if num_rows > MOST_ROWS:
        raise DataError(
            f"must hold at most {MOST_ROWS} rows, but has {num_rows} or more.", file=str(name)
        )


def _column(column: Any, name: str, path: Path) -> list[Any]:
    """Return the values of a parquet column, as Python has them."""
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, LookupError) as error:
        reason = shown_plain(str(error)).rstrip(".")
        raise DataError(
            f"must have values that can be read, but has not: {reason}.", file=path, field=name
        ) from error
    return values
