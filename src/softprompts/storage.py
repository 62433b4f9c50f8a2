"""Files that are whole or absent: written beside their place, then renamed.

Tensors are stored as safetensors with JSON beside or inside, never as pickles. What prevents a
file from being written or read becomes a `StorageError`, but for functions that name `OSError`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompts.errors import RunFolderError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

_DEEPEST = 100
MOST_BYTES = 1 << 29
"""Most bytes of a text or JSON file that is read whole."""
_NO_WAIT, _NO_LINK = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW"))
PROMPT_FILE = "prompt.safetensors"
ADAPTER_FILE = "adapter_model.safetensors"
"""What peft calls its file in the folder of an adapter."""

_DIGEST = "~digest"
"""Under which key a header keeps the digest of its file."""


@contextmanager
def reporting(path: Path, done: str) -> Iterator[None]:
    """Turn what the system has against a path into a `StorageError`: it could not be `done`."""
    try:
        yield
    except StorageError:
        raise
    except (OSError, ValueError) as error:  # such as a name that no file may have
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{path} could not be {done}: {reason}.") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old content or the new, nothing between.

    Threads and processes, also of other machines, may write one file at once; the last one stays.
    Nothing is written through a link, or to what is no regular file.
    """
    check_file(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    with reporting(path, "written"):
        try:
            with open_file(beside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one step; see `write_bytes`."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def parse_json(text: str) -> Any:
    """Return what a JSON text says; `ValueError` if it is none, or nests deeper than is written."""
    try:
        level = [value := json.loads(text)]
    except RecursionError:
        raise ValueError(f"it nests more than {_DEEPEST} deep") from None
    for _ in range(_DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return value
    raise ValueError(f"it nests more than {_DEEPEST} deep")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    with reporting(path, "read"):
        content = read_file(path)
    try:
        return parse_json(content.decode())
    except ValueError as error:
        raise StorageError(f"{path} must be JSON, but is not: {error}.") from error


def read_record(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Read a JSON object that must have some keys."""
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
    """Write tensors by name, a JSON value and their digest as one safetensors file in one step."""
    from safetensors.torch import save

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    signed = {**(about or {}), _DIGEST: _digest(content, about or {})}
    write_bytes(path, save(content, {"softprompts": json.dumps(signed, sort_keys=True)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read tensors by name, and the JSON value beside them, from a file that `write_tensors` wrote.

    The value is `{}` in other safetensors files. A file that is other than it was written is an
    error.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StorageError(f"{path} could not be read: no such file.")
    try:
        with safe_open(path, "pt") as file:
            about = parse_json((file.metadata() or {}).get("softprompts", "{}"))
            if not isinstance(about, dict):
                raise ValueError("its header holds no JSON object")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StorageError(f"{path} must be a safetensors file, but is not: {error}.") from error
    except RuntimeError as error:  # torch's own, of a file that has gone since
        raise StorageError(f"{path} could not be read: {error}.") from OSError(str(error))
    if about.pop(_DIGEST, None) not in (None, _digest(tensors, about)):
        raise StorageError(f"{path} must be as it was written, but its content was changed.")
    return tensors, about


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Return a fingerprint of tensors by name and of what stands beside them."""
    import torch

    state = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def open_file(path: Path, mode: str = "rb") -> BufferedIOBase:
    """Open a regular file, of bytes: no pipe or device is waited for.

    Nothing is written through a link either: both are an `OSError`.
    """
    is_read = mode == "rb"
    if not is_read and path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link")
    further = _NO_WAIT if is_read else _NO_WAIT | _NO_LINK
    file = open(  # noqa: SIM115 (given to the caller)
        path, mode, opener=lambda name, flags: os.open(name, flags | further, 0o666)
    )
    assert isinstance(file, BufferedIOBase)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a device or pipe")
    return file


def read_file(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file; `OSError` if it has more than so many bytes."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise OSError(errno.EFBIG, f"it has more than {most_bytes} bytes")
        return file.read()


def file_digest(path: Path) -> str:
    """Return a fingerprint of a file's content, 16 hexadecimal digits, or raise `OSError`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def rows_file(path: str) -> Path:
    """Return the file of rows: the path itself, or one in a folder of a run or an adapter."""
    folder = Path(path)
    if not folder.is_dir():
        return folder
    is_adapter = (folder / ADAPTER_FILE).is_file() and not (folder / PROMPT_FILE).is_file()
    return folder / (ADAPTER_FILE if is_adapter else PROMPT_FILE)


def check_file(path: Path) -> None:
    """Check that a path can be written to: a new file, or a regular one."""
    with reporting(path, "written"):
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
    if not stat.S_ISREG(mode):
        what = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}
        found = what.get(stat.S_IFMT(mode), "a device or pipe")
        raise StorageError(f"{path} must be a new or regular file, but is {found}.")


def is_there(path: Path) -> bool:
    """Return whether something is at a path; `StorageError` if that cannot be told."""
    with reporting(path, "read"):
        return path.exists()


def is_file(path: Path) -> bool:
    """Return whether a file is at a path; raises as `is_there` does."""
    with reporting(path, "read"):
        return path.is_file()


def is_folder(path: Path) -> bool:
    """Return whether a folder is at a path; raises as `is_there` does."""
    with reporting(path, "read"):
        return path.is_dir()


def check_run_folder(path: Path) -> None:
    """Check that a folder to be read is there, and is not that of a study or an ensemble."""
    if not is_there(path):
        raise StorageError(f"{path} could not be read: no such folder.")
    if is_there(path / "config.json"):
        return
    for file, what, runs in (("study", "a study", "runs"), ("ensemble", "an ensemble", "members")):
        if is_there(path / f"{file}.json"):
            raise StorageError(
                f"{path} must be the folder of a run, but is that of {what}. "
                f"Name one of the folders in {path / runs}."
            )
    if is_there(path / "prompt_config.json"):
        raise StorageError(
            f"{path} must be the folder of a run, but is that of a SoftPromptModel, which its "
            "from_pretrained reads."
        )
    if is_there(path / "fit.json"):
        raise StorageError(
            f"{path} must be the folder of a run, but is that of a fit. Name {path / 'ensemble'}, "
            f"or {path / 'prompt'} for the best of them."
        )


def entries(path: Path) -> list[str]:
    """Return the names in a folder, sorted, without hidden ones."""
    with reporting(path, "read"):
        try:
            return sorted(name for name in os.listdir(path) if not name.startswith("."))
        except NotADirectoryError:
            raise StorageError(f"{path} must be a folder, but is a file.") from None


def remove_parts(path: Path, names: Collection[str] | None = None) -> None:
    """Remove what killed processes left half-written in a folder; only its owner may call this.

    Where others write in the folder too, `names` are the files whose parts go.
    """
    with reporting(path, "cleaned"):
        for part in path.glob(".*.part"):
            if names is None or any(part.name.startswith(f".{name}.") for name in names):
                part.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    with reporting(path, "removed"):
        path.unlink(missing_ok=True)


def make_folder(path: Path, *, is_inner: bool = False) -> None:
    """Create a folder and its parents.

    One `is_inner` of a folder that was named must not be a link out of that.
    """
    if is_inner and path.is_symlink():
        raise StorageError(f"{path} must be a folder, but is a link.")
    with reporting(path, "created"):
        path.mkdir(parents=True, exist_ok=True)


def make_new_folder(path: Path) -> None:
    """Create a folder that holds nothing yet, or `RunFolderError`; an empty one may be there."""
    if is_there(path) and entries(path):
        raise RunFolderError(f"{path} must be a new or empty folder, but holds {entries(path)[0]}.")
    make_folder(path)
