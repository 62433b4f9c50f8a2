"""The records of a run, a line per update and per evaluation, as far as they are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from softprompts.errors import StorageError
from softprompts.problems import show
from softprompts.storage import is_there, parse_json


def read_lines(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
    """Read the records of a run, each with its place.

    Args:
        path: the run's `metrics.jsonl`; a missing file has no records.

    Returns:
        The records, and whether the last line was half written and left out.

    Raises:
        StorageError: if it cannot be read, or a whole line is no JSON object.
    """
    if not is_there(path):
        return [], False
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise StorageError(f"{path} must be UTF-8, but is not: {error}.") from error
    *whole, rest = text.split("\n")
    return list(_parsed(path, whole)), bool(rest)


def require(is_right: bool, place: str, name: str, wanted: str, found: Any) -> None:
    """Refuse a record that is not as it must be.

    Args:
        is_right: whether it is.
        place: file and line.
        name: what is wrong in it.
        wanted: what it must be.
        found: what it is.

    Raises:
        StorageError: if it is not right.
    """
    if not is_right:
        raise StorageError(f"{place}: {name} must be {wanted}, but is {show(found)}.")


def _parsed(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        place = f"{path}:{number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            raise StorageError(f"{place} must be JSON, but is not: {error}.") from error
        require(isinstance(record, dict), place, "the line", "a JSON object", record)
        yield place, record
