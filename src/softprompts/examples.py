"""Examples, and how those of a task are read and scored.

Nothing here knows tokenizers, models or prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WRITING = "writing"
"""The readout, and the template, of a task whose rows bring texts to write."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with one set of scores: a classification row, or a row with its own choices.

    Attributes:
        fields: what a template may name, by field.
        answers: the columns that are right: indices into `TaskFormat.labels`, or into `choices`.
            Empty when the row has no label.
        choices: the texts to choose from when each row brings its own (COPA, ReCoRD), else empty.
        references: the gold answers as text, for metrics that compare strings (ReCoRD), or the
            texts to write, of which the first is trained on; else empty.
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
        labels: label names in column order; empty for tasks whose rows bring their own choices, or
            texts to write.
        templates: text per readout kind, and as `chat` for a `text` readout in that form; of a task
            of writing as `writing` and `chat` alone.
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
        return not self.labels and not self.is_writing

    @property
    def is_writing(self) -> bool:
        """Whether each row brings texts to write, its references; their column is 0."""
        return not self.labels and WRITING in self.templates
