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
    from softprompts.errors import DataError, RunFolderError, StorageError
    from softprompts.storage import is_there

    if path.suffix.lower() not in FORMATS:
        raise DataError(f"`--out` must end in {', '.join(FORMATS)}, but is {str(path)!r}.")
    place = Path(os.path.realpath(path))
    if any(place.is_relative_to(os.path.realpath(folder)) for folder in run_dirs):
        raise RunFolderError(f"`--out` must lie outside the run's folder, but is {str(path)!r}.")
    if not is_there(path):
        return
    from softprompts.reports.page import MAKER

    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
    if MAKER.encode() not in head:
        raise RunFolderError(
            f"{path} must be new or an earlier picture, but is another file. Choose another name."
        )
