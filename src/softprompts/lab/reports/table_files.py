"""The folder of a report's tables: which of its files reports wrote, and may replace.

A list in the folder says so. It is written before the tables, so that a killed report is known too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from softprompts.errors import RunFolderError, StorageError
from softprompts.storage import (
    is_file,
    is_there,
    read_record,
    remove_parts,
    write_bytes,
    write_json,
)

LIST: Final = ".report.json"
"""The list's name, in the folder of the tables."""


def check_tables(folder: Path, tables: Mapping[str, str]) -> None:
    """Check that tables may be written to a folder: they replace nothing but earlier tables.

    Args:
        folder: the folder; it need not exist.
        tables: text by file name.

    Raises:
        RunFolderError: if a file of such a name is there that no report wrote.
        StorageError: if one cannot be read.
    """
    listed = _listed(folder)
    for name, text in tables.items():
        path = folder / name
        if name not in listed and is_there(path) and not _begins(path, text):
            raise RunFolderError(
                f"{path} must be new or a table of an earlier report, but is another file. "
                "Move it, or write the page elsewhere."
            )


def write_tables(folder: Path, tables: Mapping[str, str]) -> None:
    """Write tables to a folder that `check_tables` has nothing against.

    Args:
        folder: the folder; it must exist, and be locked.
        tables: text by file name.

    Raises:
        StorageError: if one cannot be written.
    """
    names = sorted({*_listed(folder), *tables})
    remove_parts(folder, [LIST, *names])
    write_json(folder / LIST, {"tables": names})
    for name, text in tables.items():
        write_bytes(folder / name, text.encode())


def _listed(folder: Path) -> list[str]:
    """Return the names of the tables that reports wrote in a folder."""
    if not is_there(folder / LIST):
        return []
    names = read_record(folder / LIST, ["tables"])["tables"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise StorageError(f"{folder / LIST} must list the names of `tables`, but does not.")
    return names


def _begins(path: Path, text: str) -> bool:
    """Return whether a file has a table's first line: reports once kept no list."""
    if not is_file(path):
        return False
    first = text.partition("\n")[0].encode() + b"\n"
    try:
        with open(path, "rb") as file:
            return file.read(len(first)) == first
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
