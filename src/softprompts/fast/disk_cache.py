"""Tensors kept on disk: found by content, never stale, safe to lose.

A folder belongs to one way of making them, and holds files that are written once, in one step, each
with a digest of all of it. Several processes may use a folder at once: one that misses what another
has removed makes it again. Nothing here ever fails a run: trouble is one line of warning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from softprompts.cache_folder import BYTES, CacheFolder
from softprompts.errors import StorageError
from softprompts.storage import make_folder, read_tensors, write_tensors

KEY_BYTES = 32
_SMALL_BYTES = 8 << 20
_MOST_SMALL = 32
_PART_SECONDS = 3600.0
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8)
_FOLDER_NAME = re.compile(r"[0-9a-f]{32}")
_FILE_NAME = re.compile(r"\.?[0-9a-f]{32}\.safetensors(\.broken|\.[0-9a-f]+\.part)?")
_LOG = logging.getLogger(__name__)
_WARNED: set[str] = set()


@final
class DiskCache:
    """Keeps rows of numbers in files under `<folder>/<digest of about>/`.

    Files are read whole when something is first looked for.

    Args:
        folder: the folder of all that is kept, and its bound in bytes.
        about: all that what is kept depends on, beside its key; kept in each file for people.
        what: what is kept, for warnings.
    """

    def __init__(self, folder: CacheFolder, about: Mapping[str, Any], what: str) -> None:
        self.folder, self.about, self.what = folder, about, what
        self.path = folder.path / digest(json.dumps(dict(about), sort_keys=True)).hex()[:32]
        self._values: dict[bytes, Tensor] | None = None
        self._files: dict[Path, int] = {}
        self._waiting: dict[bytes, Tensor] = {}
        self._is_writable = True
        self._lock = threading.RLock()

    def get(self, key: bytes) -> Tensor | None:
        """Return what is kept under a key of 32 bytes, on the CPU. Shape `(width,)`."""
        with self._lock:
            if self._values is None:
                self._values = {}
                for path in self._list():
                    self._learn(path)
            return self._values.get(key)

    def add(self, key: bytes, value: Tensor) -> None:
        """Take note of a row; it is durable, and found, after the next `save`."""
        with self._lock:
            if self._is_writable and value.dtype in _DTYPES:
                self._waiting[key] = value.detach().flatten().cpu()

    def save(self) -> None:
        """Write what waits, and hold the bound."""
        with self._lock:
            if not self._waiting:
                return
            waiting, self._waiting = self._waiting, {}
            try:
                make_folder(self.path)
                for dtype in dict.fromkeys(one.dtype for one in waiting.values()):
                    rows = {key: one for key, one in waiting.items() if one.dtype == dtype}
                    self._files[self._write(rows)] = sum(one.nbytes for one in rows.values())
                    if self._values is not None:
                        self._values |= rows
                self._merge()
                trim_cache(self.folder)
            except (StorageError, OSError) as error:
                self._is_writable = False
                warn_once("write", f"{_line(error)} {self.what} of this process are not kept.")

    def _list(self) -> list[Path]:
        try:
            found = sorted(self.path.glob("*.safetensors"))
        except OSError as error:
            warn_once("read", f"{self.path} could not be read: {_line(error)}")
            return []
        return [path for path in found if _FILE_NAME.fullmatch(path.name)]

    def _learn(self, path: Path) -> None:
        """Take note of what a file holds; one that is gone or cannot be read is left out."""
        assert self._values is not None
        try:
            size, rows = path.stat().st_size, _read(path)
        except FileNotFoundError:  # another process has merged or removed it
            return
        except (StorageError, OSError) as error:
            if not path.exists():
                return
            is_broken = isinstance(error, StorageError) and not _is_unreadable(error)
            is_aside = " It is set aside and" if is_broken else ""
            warn_once(str(path), f"{_line(error)}{is_aside} {self.what} are made again.")
            if is_broken:
                _set_aside(path)
            return
        self._files[path] = size
        self._values |= rows

    def _write(self, rows: Mapping[bytes, Tensor]) -> Path:
        """Write rows of one dtype as a file whose name is a digest of its content."""
        keys = sorted(rows)
        ends = torch.tensor([len(rows[key]) for key in keys]).cumsum(0)
        values = torch.cat([rows[key] for key in keys])
        raw = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8)
        content = (b"".join(keys), ends.numpy().tobytes(), values.view(torch.uint8).numpy().data)
        name = hashlib.sha256(b"".join(content)).hexdigest()[:32]
        path = self.path / f"{name}.safetensors"
        write_tensors(path, {"keys": raw, "ends": ends, "values": values}, self.about)
        return path

    def _merge(self) -> None:
        """Make one file of many small ones."""
        small = [path for path, size in self._files.items() if size < _SMALL_BYTES]
        if len(small) <= _MOST_SMALL:
            return
        joint: dict[torch.dtype, dict[bytes, Tensor]] = {}
        for path in small:
            try:
                for key, row in _read(path).items():
                    joint.setdefault(row.dtype, {})[key] = row
            except (FileNotFoundError, StorageError):
                self._files.pop(path)  # removed by another process, or met again when it is read
        whole = {self._write(rows): sum(r.nbytes for r in rows.values()) for rows in joint.values()}
        for path in small:
            if path in self._files and path not in whole:
                del self._files[path]
                path.unlink(missing_ok=True)
        self._files |= whole


def digest(text: str) -> bytes:
    """Return the 32 bytes that something is found by."""
    return hashlib.sha256(text.encode()).digest()


def trim_cache(folder: CacheFolder) -> None:
    """Remove what killed processes left half-written, then the oldest files over the bound.

    Args:
        folder: the folder of all that is kept; it exists.

    Raises:
        OSError: if it cannot be read, or a file cannot be removed.
    """
    found = []
    for path in _own_files(folder.path):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        if path.suffix == ".part" and time.time() - about.st_mtime > _PART_SECONDS:
            path.unlink(missing_ok=True)
        else:
            found.append((about.st_mtime_ns, path.name, about.st_size, path))
    total = sum(size for _, _, size, _ in found)
    for _, _, size, path in sorted(found):
        if total <= folder.max_bytes:
            return
        if path.suffix != ".part":
            path.unlink(missing_ok=True)
            total -= size
    if found and total == 0:
        text = f"`{BYTES}` must be larger to keep readings, but is {folder.max_bytes}."
        warn_once("bound", text)


def warn_once(subject: str, text: str) -> None:
    """Warn in one line, once per process and subject."""
    if subject not in _WARNED:
        _WARNED.add(subject)
        _LOG.warning("warning: %s", " ".join(text.split()))


def _read(path: Path) -> dict[bytes, Tensor]:
    """Return the rows of a file by their keys.

    Raises:
        FileNotFoundError: if it is gone.
        StorageError: if it cannot be read, or is not what was written.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    tensors, _ = read_tensors(path)
    try:
        raw, ends = tensors["keys"].numpy().tobytes(), [0, *tensors["ends"].tolist()]
        rows = [tensors["values"][begin:end] for begin, end in pairwise(ends)]
        if ends[-1] != len(tensors["values"]):
            raise ValueError(f"it has {len(tensors['values'])} numbers instead of {ends[-1]}")
        starts = range(0, len(raw), KEY_BYTES)
        return dict(zip([raw[i : i + KEY_BYTES] for i in starts], rows, strict=True))
    except (LookupError, TypeError, ValueError) as error:
        raise StorageError(f"{path} must hold keys and values, but does not: {error}.") from error


def _is_unreadable(error: StorageError) -> bool:
    """Return whether a file could not be read now, which says nothing of what it holds."""
    return isinstance(error.__cause__, OSError)


def _set_aside(path: Path) -> None:
    """Rename a file that cannot be believed, where that is possible."""
    try:
        path.rename(path.with_name(path.name + ".broken"))
    except OSError:  # a folder that is only read: the file is left out all the same
        return


def _own_files(root: Path) -> Iterator[Path]:
    """Yield the files that this module may remove, known by their names."""
    for folder in root.iterdir():
        if _FOLDER_NAME.fullmatch(folder.name) and folder.is_dir():
            yield from (p for p in folder.iterdir() if _FILE_NAME.fullmatch(p.name))


def _line(error: Exception) -> str:
    text = str(error)
    return text if text.endswith(".") else text + "."
