"""Where verbs may write pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

FORMATS = {".svg": "svg", ".png": "png", ".html": "html"}


def check_place(path: Path, run_dirs: Sequence[Path]) -> None:
    """Check that a picture may be written to a place: a new one, or that of an earlier picture.

    Args:
        path: the place.
        run_dirs: folders of runs, which pictures stay out of.

    Raises:
        DataError: if its ending is no format.
        RunFolderError: if it lies in a run's folder, or is another file.
        StorageError: if it cannot be read.
    """
    from softprompts.errors import DataError, RunFolderError

    if path.suffix.lower() not in FORMATS:
        raise DataError(f"`--out` must end in {', '.join(FORMATS)}, but is {str(path)!r}.")
    place = Path(os.path.realpath(path))
    if any(place.is_relative_to(os.path.realpath(folder)) for folder in run_dirs):
        raise RunFolderError(f"`--out` must lie outside the run's folder, but is {str(path)!r}.")
    _check_earlier(path, "picture")


def check_page(path: Path, study_dir: Path) -> None:
    """Check that a report may be written to a place: a new one, or that of an earlier page.

    Args:
        path: the place.
        study_dir: the study's folder, whose runs pages stay out of.

    Raises:
        DataError: if it does not end in .html.
        RunFolderError: if it lies in a run's folder, or is another file.
        StorageError: if it cannot be read.
    """
    from softprompts.errors import DataError, RunFolderError

    if path.suffix.lower() != ".html":
        raise DataError(f"`--html` must end in .html, but is {str(path)!r}.")
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(study_dir / "runs")):
        raise RunFolderError(f"`--html` must lie outside the study's runs, but is {str(path)!r}.")
    _check_earlier(path, "report")


def _check_earlier(path: Path, what: str) -> None:
    """Check that what is at a place, if anything, was written by this library."""
    from softprompts.errors import RunFolderError, StorageError
    from softprompts.reports.page import MAKER
    from softprompts.storage import is_there

    if not is_there(path):
        return
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
    if MAKER.encode() not in head:
        raise RunFolderError(
            f"{path} must be new or an earlier {what}, but is another file. Choose another name."
        )
