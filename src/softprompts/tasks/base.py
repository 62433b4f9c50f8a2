"""What a task is: rows turned into examples, and how they are read and scored.

Nothing here knows tokenizers, models or prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """One question with one set of scores: a classification row, or a row with its own choices.

    Attributes:
        fields: what a template may name, by field.
        answers: the columns that are right: indices into `TaskFormat.labels`, or into `choices`.
            Empty when the row has no label.
        choices: the texts to choose from when each row brings its own (COPA, ReCoRD), else empty.
        references: the gold answers as text, for metrics that compare strings (ReCoRD), else empty.
        group: examples that a metric scores together share it (a MultiRC question, a ReCoRD
            query), else "".
        source: `file:line` for messages.
    """

    fields: Mapping[str, str]
    answers: tuple[int, ...] = ()
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    group: str = ""
    source: str = ""


@dataclass(frozen=True)
class TaskFormat:
    """How a task is read and scored: data, with a version.

    Attributes:
        name: registry name, such as `superglue/cb`.
        version: goes up when the numbers may change.
        labels: label names in column order; empty for tasks whose rows bring their own choices.
        templates: text per readout kind, and as `chat` for a `text` readout in that form.
            `{field}` names a field, `{choice}` the choice being scored, `{mask}` the place of the
            label words, `{sep}` the border between a text and its pair, `{role:user}` begins a
            turn; `{{` and `}}` are braces.
        verbalizer: label words per label, for `cloze` and `text`; empty for choice tasks.
        metrics: metric names; the score is their mean.
        reference: where the task comes from.
        instruction: what is asked of a reader, in a sentence; "" where there is none.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    templates: Mapping[str, str]
    verbalizer: Mapping[str, str]
    metrics: tuple[str, ...]
    reference: str = ""
    instruction: str = ""

    @property
    def has_choices(self) -> bool:
        """Whether each row brings its own choices."""
        return not self.labels


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
