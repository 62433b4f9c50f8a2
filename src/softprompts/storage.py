"""Files that are whole or absent: written beside their place, then renamed.

Tensors are stored as safetensors with JSON beside or inside, never as pickles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from softprompts.errors import FolderInUseError, StorageError

if TYPE_CHECKING:
    from torch import Tensor


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old content or the new, nothing between.

    Args:
        path: the file.
        content: its new content.

    Raises:
        StorageError: if the disk is full, the folder is read-only, or anything else prevents it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with open(beside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one step; see `write_bytes`."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise StorageError(f"{path} must be JSON, but is not: {error}.") from error


def read_record(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Read a JSON object that must have some keys.

    Args:
        path: the file.
        keys: what it must have, at least.

    Returns:
        The object.

    Raises:
        StorageError: if it is missing, not JSON, no object, or lacks a key.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise StorageError(f"{path} must be a JSON object, but is a {type(content).__name__}.")
    missing = [key for key in keys if key not in content]
    if missing:
        raise StorageError(f"{path} must have `{missing[0]}`, but lacks it.")
    return content


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None
) -> None:
    """Write tensors and a JSON value as one safetensors file in one step.

    Args:
        path: the file.
        tensors: tensors by name.
        about: anything JSON can hold, kept in the file's header.

    Raises:
        StorageError: if it cannot be written.
    """
    from safetensors.torch import save

    metadata = {"softprompts": json.dumps(dict(about or {}), sort_keys=True)}
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(content, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read a file that `write_tensors` wrote.

    Returns:
        Tensors by name, and the JSON value beside them (`{}` for other safetensors files).

    Raises:
        StorageError: if it is missing or broken.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StorageError(f"{path} could not be read: no such file.")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("softprompts", "{}"))
            if not isinstance(about, dict):
                raise ValueError("its header holds no JSON object")
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StorageError(f"{path} must be a safetensors file, but is not: {error}.") from error


def is_there(path: Path) -> bool:
    """Return whether something is at a path.

    Raises:
        StorageError: if that cannot be told, as in a folder that may not be entered.
    """
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{path} could not be read: {reason}.") from error


def check_run_folder(path: Path) -> None:
    """Check that a folder that is to be read is there, and is not that of a study.

    Raises:
        StorageError: if it is missing, or the folder of a study.
    """
    if not is_there(path):
        raise StorageError(f"{path} could not be read: no such folder.")
    if not is_there(path / "config.json") and is_there(path / "study.json"):
        raise StorageError(
            f"{path} must be the folder of a run, but is that of a study. "
            f"Name one of the folders in {path / 'runs'}."
        )


def entries(path: Path) -> list[str]:
    """Return the names in a folder, sorted, without hidden ones.

    Raises:
        StorageError: if it is no folder or cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(path) if not name.startswith("."))
    except NotADirectoryError:
        raise StorageError(f"{path} must be a folder, but is a file.") from None
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error


def remove_parts(path: Path) -> None:
    """Remove what killed processes left half-written in a folder; only its owner may call this.

    Raises:
        StorageError: if that is not possible.
    """
    try:
        for part in path.glob(".*.part"):
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} could not be cleaned: {error.strerror or error}.") from error


def remove_file(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        StorageError: if that is not possible.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} could not be removed: {error.strerror or error}.") from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        StorageError: if that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path} could not be created: {error.strerror or error}.") from error


def lock(path: Path, *, should_wait: bool = False) -> IO[bytes]:
    """Open and lock a file; the lock goes with the process, however it ends.

    Args:
        path: the file; made if missing.
        should_wait: wait until it is free, for short work.

    Returns:
        The file; closing it gives the lock back.

    Raises:
        FolderInUseError: if another process holds it.
        StorageError: if it cannot be opened.
    """
    try:
        file = open(path, "ab")  # noqa: SIM115
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}.") from error
    try:
        import fcntl
    except ImportError:  # no such locks on this platform
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if should_wait else fcntl.LOCK_NB))
    except OSError:
        file.close()
        raise FolderInUseError(f"{path.parent} is in use by another process.") from None
    return file
