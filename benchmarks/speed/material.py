"""What is trained on: a task's rows as token ids, the same for every contestant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import softprompts as sp
from softprompts.encoding.inputs import EncodedExample
from softprompts.examples import Example
from softprompts.tasks.base import Task

TASKS = {
    "cb": "superglue/cb",
    "rte": "superglue/rte",
    "boolq": "fewglue/boolq",
    "bundled": "bundled/entailment",
}
"""Tasks by short name. BoolQ's rows are those of its validation split, which is the one that is at
hand whole; nothing is scored here, so it does not matter which."""


@dataclass(frozen=True)
class Rows:
    """Rows of one task.

    Attributes:
        task: the task.
        examples: what is trained on.
    """

    task: Task
    examples: tuple[Example, ...]

    @property
    def texts(self) -> list[str]:
        """All texts of the rows."""
        return [text for example in self.examples for text in example.fields.values()]


def load_rows(name: str, data_dir: str | None) -> Rows:
    """Load a task's rows.

    Args:
        name: a name of `TASKS`.
        data_dir: folder with `superglue/` and `fewglue/`.

    Raises:
        DataError: if the files are not there.
    """
    task = sp.load_task(TASKS[name], data_dir=None if name == "bundled" else data_dir)
    return Rows(task, task.validation if name == "boolq" else task.train)


def long_rows(rows: Rows, num_words: int, num_rows: int = 64) -> Rows:
    """Make rows with fields of so many words out of others; cut to tokens, all are as long.

    Args:
        rows: where the words come from.
        num_words: words of each field.
        num_rows: rows to make.
    """
    words = [word for text in rows.texts[: 4 * num_words] for word in text.split()]
    words *= -(-(num_words + 7 * num_rows) // len(words))
    num_labels, examples = len(rows.task.format.labels), []
    for number in range(num_rows):
        text = " ".join(words[7 * number : 7 * number + num_words])
        fields = dict.fromkeys(rows.examples[0].fields, text)
        examples.append(Example(fields, (number % num_labels,)))
    return Rows(rows.task, tuple(examples))


def as_records(
    encoded: Sequence[EncodedExample], *, is_decoder: bool = False
) -> list[dict[str, Any]]:
    """Return encoded rows as what a `Trainer` reads: token ids, mask, segments and label.

    The label is a column for a classifier, or the right answer's tokens for a model that writes; a
    decoder reads them behind the input.

    Args:
        encoded: the rows.
        is_decoder: whether a model that writes is a decoder.
    """
    records = []
    for example in encoded:
        (item,) = example.inputs
        label: Any = example.answers[0]
        if item.targets:
            (label,) = [list(t.tokens) for t in item.targets if t.column == example.answers[0]]
        ids = list(item.ids)
        if item.targets and is_decoder:
            ids = ids[: item.end]  # what is behind it is the begin of the answer
            ids, label = ids + label, [-100] * len(ids) + label
        record = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
        if any(item.segments):
            record["token_type_ids"] = list(item.segments)
        records.append(record)
    return records
