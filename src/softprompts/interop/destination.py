"""New folders and files that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from softprompts.errors import RunFolderError, StorageError
from softprompts.storage import entries, is_folder, is_there


def check_places(folder: Path, *files: Path) -> None:
    """Check that nothing is where something is to be written."""
    if is_there(folder) and not (is_folder(folder) and not entries(folder)):
        found = entries(folder)[0] if is_folder(folder) else "a file"
        raise RunFolderError(f"{folder} must be a new or empty folder, but holds {found}.")
    for file in files:
        if is_there(file) or file.is_symlink():
            raise RunFolderError(f"{file} must be a new file, but is there. Choose another name.")


@contextmanager
def new_places(folder: Path, *files: Path) -> Iterator[Sequence[Path]]:
    """Give a folder and files to write, beside their places; they are moved there at the end.

    The folder must be new or empty, the files new; they lie in it or elsewhere. Yields an empty
    folder and a path for each file.
    """
    check_places(folder, *files)
    parts: list[Path] = []
    try:
        try:
            for place in (folder, *(file for file in files if not file.is_relative_to(folder))):
                place.parent.mkdir(parents=True, exist_ok=True)
                made = tempfile.mkdtemp(".part", f".{place.name}.", place.parent)
                parts.append(Path(made))
            whole, rest = parts[0], iter(parts[1:])
            beside = [
                whole / file.relative_to(folder)
                if file.is_relative_to(folder)
                else next(rest) / file.name
                for file in files
            ]
            yield whole, *beside
            whole.chmod(0o755)
            for part, file in zip(beside, files, strict=True):
                if not part.is_relative_to(whole):
                    part.rename(file)
            whole.rename(folder)
        finally:
            for part in parts:
                shutil.rmtree(part, ignore_errors=True)
    except Exception as error:
        is_known = isinstance(error, OSError | SafetensorError) or type(error) is Exception
        if isinstance(error, StorageError | RunFolderError) or not is_known:
            raise  # tokenizers say that a disk is full by a bare Exception
        said = getattr(error, "strerror", None) or error
        raise StorageError(f"{folder} could not be written: {said}.") from error
