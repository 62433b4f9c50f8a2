"""New folders and files that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from softprompts.errors import RunFolderError, StorageError
from softprompts.storage import entries, is_folder, is_there


@contextmanager
def new_places(folder: Path, *files: Path) -> Iterator[Sequence[Path]]:
    """Give a folder and files to write, beside their places; they are moved there at the end.

    Args:
        folder: where the folder goes: a new or empty one.
        files: where files go; none of them may be there.

    Yields:
        An empty folder, and a path for each file.

    Raises:
        RunFolderError: if a place is taken.
        StorageError: if something cannot be written.
    """
    if is_there(folder) and not (is_folder(folder) and not entries(folder)):
        found = entries(folder)[0] if is_folder(folder) else "a file"
        raise RunFolderError(f"{folder} must be a new or empty folder, but holds {found}.")
    for file in files:
        if is_there(file) or file.is_symlink():
            raise RunFolderError(f"{file} must be a new file, but is there. Choose another name.")
    places, parts = (folder, *files), list[Path]()
    try:
        try:
            for place in places:
                place.parent.mkdir(parents=True, exist_ok=True)
                name = f".{place.name}.", ".part"
                parts.append(Path(tempfile.mkdtemp(name[1], name[0], place.parent)))
            yield (
                parts[0],
                *(part / file.name for part, file in zip(parts[1:], files, strict=True)),
            )
            parts[0].chmod(0o755)
            for part, file in zip(parts[1:], files, strict=True):
                (part / file.name).rename(file)
            parts[0].rename(folder)
        finally:
            for part in parts:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        if isinstance(error, StorageError | RunFolderError):
            raise
        raise StorageError(f"{folder} could not be written: {error.strerror or error}.") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars and reports off the terminal while a model is written or read."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
