"""MultiRC's metrics: each row is one proposed answer, and the rows of a question share a group."""

from __future__ import annotations

from collections.abc import Sequence

from softprompts.errors import DataError
from softprompts.examples import Example, TaskFormat
from softprompts.metrics.classification import label_f1

_RIGHT = 1


def answer_f1(predictions: Sequence[int], examples: Sequence[Example], form: TaskFormat) -> float:
    """Return the F1 of the second label (a right answer) over all proposed answers."""
    _check_binary(form, "multirc-f1a")
    return label_f1([p == _RIGHT for p in predictions], [_RIGHT in row.answers for row in examples])


def question_exact_match(
    predictions: Sequence[int], examples: Sequence[Example], form: TaskFormat
) -> float:
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
