"""What a task loader is asked for: one small value, the same for every loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softprompts.errors import DataError
from softprompts.storage import is_folder


@dataclass(frozen=True)
class TaskRequest:
    """The part of a recipe's `task` section that a loader needs.

    Attributes:
        name: registry name, such as `superglue/cb`.
        data_dir: folder with the task's files, or None where the loader knows another source.
        skip_bad_rows: whether bad rows are counted and left out instead of refused.
        options: the loader's own options, checked and with their defaults filled in.
        template: the template that rows will be read by, or None for the task's own. A loader may
            use it to know which fields are needed.
    """

    name: str
    data_dir: Path | None = None
    skip_bad_rows: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None

    def option(self, key: str) -> Any:
        """Return an option, or None where it was not given."""
        return self.options.get(key)


def find_folder(request: TaskRequest, suite: str, folder: str) -> Path:
    """Return the folder of a task: `data_dir/suite/folder` or else `data_dir/folder`.

    Raises:
        DataError: if neither exists; the text names both.
        StorageError: if no folder may have such a name.
    """
    if request.data_dir is None:
        raise DataError(
            f"`data_dir` must be the folder that holds {folder}, but is None for {request.name}."
        )
    tried = (request.data_dir / suite / folder, request.data_dir / folder)
    for path in tried:
        if is_folder(path):
            return path
    raise DataError(
        f"`data_dir` must hold the folder of {request.name}, but neither {tried[0]} nor "
        f"{tried[1]} is a folder."
    )
