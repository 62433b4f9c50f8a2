"""What a task is: examples, and how they are read and scored; and what its loader is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softprompts.examples import Example, TaskFormat


@dataclass(frozen=True)
class Task:
    """A task with its rows.

    Attributes:
        format: how the rows are read and scored.
        train: rows to train on.
        held_out: rows for model selection that come with the task (`dev32`), or empty: then a part
            of `train` is held out.
        validation: the reported split.
        validation_name: its name in tables, such as `val` or `dev32`.
        skipped_rows: bad rows left out by request, per file.
        origin: what `load_task` was asked for, as a recipe's `task` section says it; empty for a
            task that was built by hand.
    """

    format: TaskFormat
    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    validation: tuple[Example, ...]
    validation_name: str = "validation"
    skipped_rows: Mapping[str, int] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = (len(self.train), len(self.held_out), len(self.validation))
        return "Task({!r}, {} train, {} held out, {} {})".format(
            self.format.name, *counts, self.validation_name
        )

    def digest(self) -> str:
        """Return a fingerprint of all rows, so that a resumed run notices changed data."""
        state = hashlib.sha256()
        for rows in (self.train, self.held_out, self.validation):
            for row in rows:
                line = [dict(row.fields), row.answers, row.choices, row.references, row.group]
                state.update(json.dumps(line, sort_keys=True).encode())
            state.update(b"\n--\n")
        return state.hexdigest()[:16]


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
