"""Where a run leaves its traces: a folder that survives any kill, or nothing.

A run folder holds `config.json` (what the run is), `metrics.jsonl` (a line per update and per
evaluation), `examples.txt` (inputs whose words were replaced, where a regularizer does that),
`state/checkpoint.safetensors` (what resuming needs), `prompt.safetensors` and, written last,
`result.json`: its presence means that the run is finished.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from softprompts.errors import RunFolderError, StorageError
from softprompts.locks import is_locked, lock
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_kept_run
from softprompts.storage import (
    check_run_folder,
    entries,
    is_there,
    make_folder,
    open_file,
    read_record,
    read_tensors,
    remove_parts,
    reporting,
    write_json,
    write_tensors,
)
from softprompts.training.stored import About, check_stored, required

ABOUT = required(About)
"""What `config.json` must have."""

METRICS, EXAMPLES = "metrics.jsonl", "examples.txt"
_SIZES = {METRICS: "metrics_bytes", EXAMPLES: "examples_bytes"}
"""Files that grow while a run is trained."""


@dataclass(frozen=True)
class Checkpoint:
    """What resuming a run needs.

    Attributes:
        tensors: parameters, optimizer moments and the best parameters so far, by name.
        about: counters and scores, as JSON can hold them.
    """

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]


class Journal(ABC):
    """Keeps the traces of one run."""

    @abstractmethod
    def restore(self) -> Checkpoint | None:
        """Return the last checkpoint, or `None` at the beginning."""

    @abstractmethod
    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line of metrics; it becomes durable with the next checkpoint."""

    @abstractmethod
    def show(self, text: str) -> None:
        """Add to the examples that are meant for reading; durable with the next checkpoint."""

    @abstractmethod
    def save(self, checkpoint: Checkpoint) -> None:
        """Make the lines so far and this checkpoint durable, both or neither."""

    @abstractmethod
    def finish(
        self, tensors: Mapping[str, Tensor], about: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        """Keep the trained prompt and, last of all, the result."""


@final
class NoJournal(Journal):
    """Keeps nothing: for runs inside a program."""

    def restore(self) -> Checkpoint | None:
        """Return `None`: there is nothing to go on from."""
        return None

    def log(self, record: Mapping[str, Any]) -> None:
        """Drop the line."""

    def show(self, text: str) -> None:
        """Drop the text."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Drop the checkpoint."""

    def finish(
        self, tensors: Mapping[str, Tensor], about: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        """Drop prompt and result; the caller has them."""


@final
class RunFolder(Journal):
    """A run's folder, held by one process at a time.

    Use it as a context manager, so that the lock is given back.

    Args:
        path: the folder; created if missing.
        about: content of `config.json`; its `identity` says whose folder it is.

    Raises:
        RunFolderError: if the folder belongs to another run or holds other files.
        FolderInUseError: if another process is using it.
        StorageError: if it cannot be written.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.identity = path, about["identity"]
        self._waiting: dict[str, list[str]] = {METRICS: [], EXAMPLES: []}
        check_free(path, about)
        make_folder(path)
        self._lock = lock(path / ".lock")
        try:
            check_free(path, about)  # another process may have been here before the lock
            if not is_there(path / "config.json"):
                write_json(path / "config.json", dict(about))
            make_folder(path / "state", is_inner=True)
            for folder in (path, path / "state"):
                remove_parts(folder)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def restore(self) -> Checkpoint | None:
        """Return the last checkpoint; what was written to other files after it is taken back.

        Raises:
            StorageError: if checkpoint or metrics are broken, or not this run's.
        """
        path = self.path / "state" / "checkpoint.safetensors"
        if not path.exists():
            self.take_back({})
            return None
        tensors, about = read_tensors(path)
        if about.get("identity") != self.identity:
            raise StorageError(
                f"{path} must be a checkpoint of run {self.identity}, but is of "
                f"{about.get('identity')}."
            )
        self.take_back(about)
        return Checkpoint(tensors, about)

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line of metrics."""
        self._waiting[METRICS].append(json.dumps(dict(record)) + "\n")

    def show(self, text: str) -> None:
        """Add to the examples."""
        self._waiting[EXAMPLES].append(text)

    def save(self, checkpoint: Checkpoint) -> None:
        """Append the lines, then replace the checkpoint, which says how long the lines are."""
        about = {**checkpoint.about, "identity": self.identity, **self.flush()}
        write_tensors(self.path / "state" / "checkpoint.safetensors", checkpoint.tensors, about)

    def finish(
        self, tensors: Mapping[str, Tensor], about: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        """Write `prompt.safetensors`, then `result.json`."""
        self.flush()
        write_tensors(self.path / "prompt.safetensors", tensors, about)
        write_json(self.path / "result.json", dict(result))

    def take_back(self, about: Mapping[str, Any]) -> None:
        """Cut the files to the bytes that a checkpoint knows, and drop waiting lines.

        Args:
            about: of the checkpoint, as `flush` returned it; empty at the beginning.

        Raises:
            StorageError: if there are fewer, or they cannot be cut.
        """
        for name, key in _SIZES.items():
            self._waiting[name].clear()
            self._cut(name, about.get(key, 0))

    def _cut(self, name: str, size: int) -> None:
        """Cut a file to some bytes."""
        path = self.path / name
        with reporting(path, "written"):
            found = path.stat().st_size if path.exists() else 0
            if found > size:
                with open_file(path, "r+b") as file:
                    os.ftruncate(file.fileno(), size)
        if found < size:
            raise StorageError(
                f"{path} must have at least the {size} bytes that the checkpoint knows, but has "
                f"{found}."
            )

    def flush(self) -> dict[str, int]:
        """Append what waits and return the sizes in bytes, for a checkpoint to know.

        Raises:
            StorageError: if it cannot be written.
        """
        sizes = {_SIZES[METRICS]: self._append(METRICS)}
        if self._waiting[EXAMPLES] or is_there(self.path / EXAMPLES):
            sizes[_SIZES[EXAMPLES]] = self._append(EXAMPLES)
        return sizes

    def _append(self, name: str) -> int:
        """Append the waiting lines of a file and return its size in bytes."""
        path, lines = self.path / name, self._waiting[name]
        with reporting(path, "written"), open_file(path, "ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        lines.clear()
        return size


def check_free(path: Path, about: Mapping[str, Any]) -> None:
    """Check, without writing, that a folder may be used by a run.

    Args:
        path: the folder.
        about: the run's `config.json`.

    Raises:
        RunFolderError: if it belongs to another run, or holds other files.
        StorageError: if it is not a folder.
    """
    if not is_there(path):
        return
    others = entries(path)
    if "config.json" not in others:
        if others:
            raise RunFolderError(
                f"{path} must be empty or a run's folder, but holds {', '.join(others[:3])}."
            )
        return
    found = read_record(path / "config.json", ABOUT)
    for key, name in (
        ("identity", "the run"),
        ("data_digest", "a run on data"),
        ("backbone_fingerprint", "a run on backbone weights"),
        ("dtype", "a run in"),
    ):
        if found.get(key) != about.get(key):
            raise RunFolderError(
                f"{path} must belong to {name} {about.get(key)}, but belongs to {found.get(key)}. "
                "Choose another folder."
            )
    _check_config(path / "config.json", found)
    if found["task_format"] != json.loads(json.dumps(about["task_format"])):
        raise RunFolderError(f"{path / 'config.json'} must keep `task_format`, but was edited.")


def read_about(path: Path) -> dict[str, Any]:
    """Read a run folder's `config.json`.

    Args:
        path: the folder.

    Returns:
        Its content, which describes the run that it names.

    Raises:
        StorageError: if it is missing or broken, or is the folder of a study.
        RecipeError: if its configuration breaks the schema.
        RunFolderError: if a value is wrong, or its configuration is another run's than its
            identity says.
    """
    check_run_folder(path)
    about = read_record(path / "config.json", ABOUT)
    _check_config(path / "config.json", about)
    return about


def _check_config(path: Path, about: Mapping[str, Any]) -> None:
    """Check values, and that the configuration is the one that its identity was made from."""
    check_stored(path, about, About)
    computed = identity(parse_kept_run(about["config"], str(path)))
    if computed != about["identity"]:
        raise RunFolderError(
            f"{path} must describe run {about['identity']}, but its `config` is that of "
            f"{computed}: it was edited, or made by components of another version."
        )


def is_in_use(path: Path) -> bool:
    """Return whether another process holds a folder; nothing is created.

    Args:
        path: a folder with a `.lock`, or none yet.

    Raises:
        StorageError: if its `.lock` cannot be read.
    """
    return is_locked(path / ".lock")
