"""Where a pack's runs checkpoint together: one file, so that all of them stand at one update.

The bits of a run depend a little on who is read beside it. After a kill, each run must therefore
find the others where they were. One file for all of them is whole or absent, as any file here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch import Tensor

from softprompts.errors import StorageError
from softprompts.locks import lock
from softprompts.storage import (
    is_there,
    make_folder,
    read_tensors,
    remove_file,
    remove_parts,
    write_tensors,
)
from softprompts.training.journal import Checkpoint, Journal, RunFolder
from softprompts.training.trainable import under


@final
class PackFolder:
    """The folder of a pack, held by one process at a time; use it as a context manager.

    Args:
        path: the folder; created if missing.
        runs: identities of the pack's runs.

    Raises:
        FolderInUseError: if another process is using it.
        StorageError: if it cannot be written.
    """

    def __init__(self, path: Path, runs: Sequence[str]) -> None:
        self.path, self._runs = path, tuple(runs)
        self._file = path / "checkpoint.safetensors"
        self._staged: dict[str, Checkpoint] = {}
        self._after: list[Callable[[], None]] = []
        make_folder(path)
        self._lock = lock(path / ".lock")
        try:
            remove_parts(path)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> PackFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def restore(self) -> dict[str, Checkpoint]:
        """Return the last checkpoint of each run that was in training, by identity.

        Returns:
            Nothing at the beginning, and when all are finished.

        Raises:
            StorageError: if the file is broken, or of other runs.
        """
        if not is_there(self._file):
            return {}
        tensors, about = read_tensors(self._file)
        strangers = sorted(set(about.get("runs", {"none": 0})) - set(self._runs))
        if strangers:
            raise StorageError(
                f"{self._file} must be a checkpoint of runs {', '.join(self._runs)}, but holds "
                f"{strangers[0]}."
            )
        self._staged = {
            name: Checkpoint(under(f"{name}.", tensors), one) for name, one in about["runs"].items()
        }
        return dict(self._staged)

    def stage(self, name: str, checkpoint: Checkpoint) -> None:
        """Take a run's checkpoint, to be made durable with those of the others."""
        self._staged[name] = checkpoint

    def commit(self) -> None:
        """Make what was staged durable, all of it or nothing.

        Raises:
            StorageError: if it cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        about: dict[str, Mapping[str, Any]] = {}
        for name, checkpoint in self._staged.items():
            tensors |= {f"{name}.{key}": value for key, value in checkpoint.tensors.items()}
            about[name] = checkpoint.about
        write_tensors(self._file, tensors, {"runs": about})
        for call in self._after:
            call()

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call something whenever what was staged has become durable."""
        self._after.append(call)

    def drop(self, name: str) -> None:
        """Forget a run that has its result; without any left, the file goes.

        Raises:
            StorageError: if the file cannot be removed.
        """
        self._staged.pop(name, None)
        if not self._staged:
            remove_file(self._file)


@final
class PackedRun(Journal):
    """The journal of a run that checkpoints with its pack.

    Args:
        folder: the run's own folder, for metrics, prompt and result.
        pack: the pack's folder.
        checkpoint: where the run stood, or `None` at the beginning.
    """

    def __init__(self, folder: RunFolder, pack: PackFolder, checkpoint: Checkpoint | None) -> None:
        self.folder, self.pack, self._checkpoint = folder, pack, checkpoint

    def restore(self) -> Checkpoint | None:
        """Return where the run stood; lines of metrics written after that are taken back.

        Raises:
            StorageError: if metrics are missing.
        """
        found = self._checkpoint
        self.folder.take_back({} if found is None else found.about)
        return found

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line of metrics."""
        self.folder.log(record)

    def show(self, text: str) -> None:
        """Add text for reading."""
        self.folder.show(text)

    def save(self, checkpoint: Checkpoint) -> None:
        """Append the lines, and stage the checkpoint, which says how long the lines are."""
        about = {**checkpoint.about, **self.folder.flush()}
        self.pack.stage(self.folder.identity, Checkpoint(checkpoint.tensors, about))

    def finish(
        self, tensors: Mapping[str, Tensor], about: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        """Write `prompt.safetensors`, then `result.json`."""
        self.folder.finish(tensors, about, result)
