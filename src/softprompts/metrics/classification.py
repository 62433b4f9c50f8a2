"""Metrics of labels: accuracy, F1, and those of MultiRC.

In MultiRC each row is one proposed answer, and the rows of a question share a group.

Letters: t true positives, p predicted, g gold; `F1 = 2t / (p + g)`.
"""

from __future__ import annotations

from collections.abc import Sequence

from softprompts.errors import DataError
from softprompts.examples import Example, TaskFormat

_RIGHT = 1
"""The column of a right answer in MultiRC."""


def accuracy(predictions: Sequence[int], examples: Sequence[Example], form: TaskFormat) -> float:
    """Return the share of rows whose column is one of the right ones."""
    hits = sum(column in row.answers for column, row in zip(predictions, examples, strict=True))
    return hits / len(examples)


def macro_f1(predictions: Sequence[int], examples: Sequence[Example], form: TaskFormat) -> float:
    """Return the mean F1 over all labels of the task; a label that is nowhere counts 0."""
    if form.has_choices:
        raise DataError(f"metric 'macro-f1' must be used with labels, but {form.name} has none.")
    for row in examples:
        if len(row.answers) != 1:
            raise DataError(
                f"{row.source}: metric 'macro-f1' must have one right label per row, but has "
                f"{list(row.answers)}."
            )
    golds = [row.answers[0] for row in examples]
    scores = [
        label_f1([p == label for p in predictions], [g == label for g in golds])
        for label in range(len(form.labels))
    ]
    return sum(scores) / len(scores)


def label_f1(predicted: Sequence[bool], gold: Sequence[bool]) -> float:
    """Return the F1 of one label, 0 where it is neither predicted nor gold."""
    true = sum(p and g for p, g in zip(predicted, gold, strict=True))
    total = sum(predicted) + sum(gold)
    return 2 * true / total if total else 0.0


def multirc_f1a(predictions: Sequence[int], examples: Sequence[Example], form: TaskFormat) -> float:
    """Return the F1 of the second label (a right answer) over all proposed answers."""
    _check_binary(form, "multirc-f1a")
    return label_f1([p == _RIGHT for p in predictions], [_RIGHT in row.answers for row in examples])


def multirc_em(predictions: Sequence[int], examples: Sequence[Example], form: TaskFormat) -> float:
    """Return the share of questions with every proposed answer judged rightly."""
    _check_binary(form, "multirc-em")
    is_right: dict[str, bool] = {}
    for column, row in zip(predictions, examples, strict=True):
        if not row.group:
            raise DataError(
                f"{row.source}: metric 'multirc-em' must have rows with a group, but it is ''."
            )
        is_right[row.group] = is_right.get(row.group, True) and column in row.answers
    return sum(is_right.values()) / len(is_right)


def _check_binary(form: TaskFormat, metric: str) -> None:
    if len(form.labels) != 2:
        raise DataError(
            f"metric {metric!r} must be used with two labels, but {form.name} has "
            f"{len(form.labels)}."
        )
