"""Readings of a frozen backbone, kept on disk: found by content, never stale, safe to lose.

A folder belongs to one backbone in one surrounding and holds shards. A shard is written once, in
one step, and never changed; its name is a digest of its content. Several processes may use a folder
at once: one that misses a shard which another has merged or removed reads the input again. Nothing
here ever fails a run: trouble is one line of warning, and the input is read again.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import final

from torch import Tensor

from softprompts.cache_folder import BYTES, CacheFolder
from softprompts.errors import StorageError
from softprompts.storage import make_folder
from softprompts.training.shards import BrokenShardError, Shard, form_of, write_shard

_SMALL_BYTES = 8 << 20
_MOST_SMALL = 32
_PART_SECONDS = 3600.0
_FOLDER_NAME = re.compile(r"[0-9a-f]{32}")
_FILE_NAME = re.compile(r"\.?[0-9a-f]{32}\.safetensors(\.broken|\.[0-9a-f]+\.part)?")
_LOG = logging.getLogger(__name__)
_WARNED: set[str] = set()


class ReadingCache(ABC):
    """Keeps readings beyond the process."""

    @abstractmethod
    def get(self, key: bytes) -> Tensor | None:
        """Return the reading under a key, on the CPU, or `None`."""

    @abstractmethod
    def add(self, key: bytes, value: Tensor) -> None:
        """Take note of a reading; it is durable after the next `save`."""

    @abstractmethod
    def save(self) -> None:
        """Make the readings so far durable."""


@final
class NoCache(ReadingCache):
    """Keeps nothing."""

    def get(self, key: bytes) -> Tensor | None:
        """Return `None`."""
        return None

    def add(self, key: bytes, value: Tensor) -> None:
        """Drop the reading."""

    def save(self) -> None:
        """Do nothing."""


@final
class InstanceCache(ReadingCache):
    """Keeps readings in shards under `<folder>/<name>/`.

    Args:
        folder: the folder of all readings, and its bound in bytes.
        name: 32 hexadecimal digits that say whose readings these are.
        about: what the name stands for; kept in each shard for people to read.
    """

    def __init__(self, folder: CacheFolder, name: str, about: Mapping[str, object]) -> None:
        self.folder, self.about = folder, about
        self.path = folder.path / name
        self._places: dict[bytes, tuple[Shard, int]] | None = None
        self._shards: dict[Path, Shard] = {}
        self._pending: dict[bytes, Tensor] = {}
        self._is_writable = True
        self._lock = threading.RLock()

    def get(self, key: bytes) -> Tensor | None:
        """Return the reading under a key, on the CPU, or `None`."""
        with self._lock:
            if self._places is None:
                self._index()
            for _ in range(2):  # another process may have merged the shard into a new one
                place = (self._places or {}).get(key)
                if place is None:
                    return None
                shard, row = place
                try:
                    return shard.read(row)
                except FileNotFoundError:
                    self._index()
                except BrokenShardError as error:
                    self._set_aside(shard.path, error)
                    self._forget(shard)
                except OSError as error:
                    warn_once(str(shard.path), f"{shard.path} could not be read: {_line(error)}")
                    self._forget(shard)
            return None

    def add(self, key: bytes, value: Tensor) -> None:
        """Take note of a reading; it is durable after the next `save`."""
        with self._lock:
            if self._is_writable and form_of(value) is not None:
                self._pending[key] = value

    def save(self) -> None:
        """Write the waiting readings, and hold the bound."""
        with self._lock:
            if not self._pending:
                return
            pending, self._pending = self._pending, {}
            try:
                make_folder(self.path)
                for group in _by_form(pending):
                    self._learn(write_shard(self.path, group, self.about))
                self._merge()
                trim_cache(self.folder)
            except (StorageError, OSError) as error:
                self._is_writable, self._pending = False, {}
                warn_once("write", f"{_line(error)} Readings of this process are not kept.")

    def _index(self) -> None:
        """Look at all shards of the folder; broken ones are set aside."""
        known, self._shards, self._places = self._shards, {}, {}
        try:
            paths = sorted(self.path.glob("*.safetensors"))
        except OSError as error:
            warn_once("read", f"{self.path} could not be read: {_line(error)}")
            return
        for path in paths:
            if _FILE_NAME.fullmatch(path.name):
                self._learn(path, known.get(path))

    def _learn(self, path: Path, known: Shard | None = None) -> None:
        """Take note of what a shard holds; one that is gone or cannot be read is left out."""
        if self._places is None:
            self._index()
        assert self._places is not None
        try:
            shard = known or Shard(path)
        except FileNotFoundError:  # another process has merged or removed it
            return
        except BrokenShardError as error:
            self._set_aside(path, error)
            return
        except OSError as error:
            warn_once(str(path), f"{path} could not be read: {_line(error)}")
            return
        self._shards[path] = shard
        self._places.update((key, (shard, row)) for row, key in enumerate(shard.keys))

    def _forget(self, shard: Shard) -> None:
        self._shards.pop(shard.path, None)
        kept = (self._places or {}).items()
        self._places = {key: place for key, place in kept if place[0] is not shard}

    def _set_aside(self, path: Path, error: Exception) -> None:
        """Rename a shard that cannot be believed, where that is possible, and say so."""
        warn_once(str(path), f"{_line(error)} It is set aside and its inputs are read again.")
        try:
            path.rename(path.with_name(path.name + ".broken"))
        except OSError:  # a folder that is only read: the shard is left out all the same
            return

    def _merge(self) -> None:
        """Make one shard of many small ones of one form."""
        forms: dict[object, list[Shard]] = {}
        for shard in self._shards.values():
            if shard.num_bytes < _SMALL_BYTES:
                forms.setdefault(shard.form, []).append(shard)
        for shards in forms.values():
            if len(shards) <= _MOST_SMALL:
                continue
            values: dict[bytes, Tensor] = {}
            for shard in shards:
                try:
                    values |= {key: shard.read(row) for row, key in enumerate(shard.keys)}
                except FileNotFoundError:
                    self._forget(shard)
                except BrokenShardError as error:
                    self._set_aside(shard.path, error)
                    self._forget(shard)
            if not values:
                continue
            whole = write_shard(self.path, values, self.about)
            for shard in shards:
                if shard.path != whole:
                    self._forget(shard)
                    shard.path.unlink(missing_ok=True)
            self._learn(whole)


def trim_cache(folder: CacheFolder) -> None:
    """Remove what killed processes left half-written, then the oldest files over the bound.

    Args:
        folder: the folder of all that is kept; it exists.

    Raises:
        OSError: if it cannot be read, or a file cannot be removed.
    """
    found = []
    for path in _files(folder.path):
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
        warn_once(
            "bound",
            f"`{BYTES}` must be larger to keep readings, but is {folder.max_bytes}.",
        )


def warn_once(subject: str, text: str) -> None:
    """Warn in one line, once per process and subject."""
    if subject not in _WARNED:
        _WARNED.add(subject)
        _LOG.warning("warning: %s", " ".join(text.split()))


def _files(root: Path) -> Iterable[Path]:
    """Return the files that this module may remove, known by their names."""
    for folder in root.iterdir():
        if _FOLDER_NAME.fullmatch(folder.name) and folder.is_dir():
            yield from (p for p in folder.iterdir() if _FILE_NAME.fullmatch(p.name))


def _by_form(values: Mapping[bytes, Tensor]) -> Iterable[dict[bytes, Tensor]]:
    """Split readings into those of one dtype and shape."""
    groups: dict[object, dict[bytes, Tensor]] = {}
    for key, value in values.items():
        groups.setdefault(form_of(value), {})[key] = value
    return groups.values()


def _line(error: Exception) -> str:
    text = str(error)
    return text if text.endswith(".") else text + "."
