"""Where verbs may write pictures, pages and predictions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from softprompts.errors import DataError, RunFolderError, StorageError
from softprompts.storage import check_file, is_folder, is_there, open_file, reporting, write_bytes

FORMATS = (".svg", ".png", ".html")


def find_place(
    out: Path | None, default: str, run_dirs: Sequence[Path], *, as_json: bool
) -> Path | None:
    """Return where a picture is written, if it is: at a new place, or that of an earlier picture.

    Its ending must be a format, and no place lies in a run's folder.
    """
    path = Path(default) if out is None and not as_json else out
    if path is None:
        return None
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"`--out` must end in {', '.join(FORMATS)}, but is {str(path)!r}.")
    if lies_in(path, run_dirs):
        raise RunFolderError(f"`--out` must lie outside the run's folder, but is {str(path)!r}.")
    _check_earlier(path, "picture")
    return path


def write_picture(
    path: Path, found: Any, draw: Callable[[Any, str], bytes], draw_page: Callable[[Any], bytes]
) -> None:
    """Write what was found in the format of a place's ending."""
    format = path.suffix.lower().removeprefix(".")
    write_bytes(path, draw_page(found) if format == "html" else draw(found, format))


def check_page(path: Path, study_dir: Path) -> None:
    """Check that a report may be written: at a new place, or that of an earlier page.

    It must end in .html, and lie outside the study's runs.
    """
    if path.suffix.lower() != ".html":
        raise DataError(f"`--html` must end in .html, but is {str(path)!r}.")
    if lies_in(path, [study_dir / "runs"]):
        raise RunFolderError(f"`--html` must lie outside the study's runs, but is {str(path)!r}.")
    _check_earlier(path, "report")


def check_output(path: Path, source: Path, run_dir: Path) -> None:
    """Check that predictions may be written: to a file outside the run, not their own input."""
    if not is_folder(path.parent):
        raise StorageError(f"{path} must be in a folder that exists, but {path.parent} is not.")
    if is_folder(path):
        raise StorageError(f"{path} must be a file other than the input, but is a folder.")
    check_file(path)
    if is_there(path) and is_there(source) and os.path.samefile(path, source):
        raise StorageError(f"{path} must be a file other than the input, but is the input.")
    if lies_in(path, [run_dir]):
        raise RunFolderError(f"`--output` must lie outside the run's folder, but is {str(path)!r}.")
    _check_earlier(path, "file of predictions", rb'\A(\{"source": |\Z)')


def lies_in(path: Path, folders: Sequence[Path]) -> bool:
    """Return whether a place is one of some folders or below one, wherever links lead."""
    place = Path(os.path.realpath(path))
    return any(place.is_relative_to(os.path.realpath(folder)) for folder in folders)


def _check_earlier(path: Path, what: str, begin: bytes | None = None) -> None:
    """Check that what is at a place, if anything, was written by this library, as `begin` tells."""
    from softprompts.lab.reports.pages import MAKER

    check_file(path)
    if not is_there(path):
        return
    with reporting(path, "read"), open_file(path) as file:
        head = file.read(4096)
    if not re.search(re.escape(MAKER.encode()) if begin is None else begin, head):
        raise RunFolderError(
            f"{path} must be new or an earlier {what}, but is another file. Choose another name."
        )
