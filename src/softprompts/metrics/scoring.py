"""Scores of predictions, and of the best constant prediction. All are fractions in [0, 1]."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from softprompts.errors import DataError
from softprompts.examples import Example, TaskFormat
from softprompts.metrics.registry import METRICS, scored
from softprompts.metrics.writing import Written, check_metrics

_ROUNDING = 1e-9
"""How far from a share a metric may be by rounding alone."""


def compute(
    names: Sequence[str],
    predictions: Sequence[int] | Sequence[Written],
    examples: Sequence[Example],
    form: TaskFormat,
) -> dict[str, float]:
    """Return the value of each metric: a fraction in [0, 1], but for those that are no share.

    A prediction is a column: an index into the labels, or into the row's choices; in a task of
    writing, it is what was written. Each row has an answer. What does not fit is a `DataError`.

    Example:
        >>> form = TaskFormat("demo", 1, ("no", "yes"), {}, {}, ("accuracy",))
        >>> compute(["accuracy"], [1, 0], [Example({}, (1,)), Example({}, (1,))], form)
        {'accuracy': 0.5}
    """
    if not names:
        raise DataError("metrics must be at least one, but are [].")
    if form.is_writing:
        return _written(names, predictions, examples)
    columns = _check(predictions, examples, form)
    return {name: _value(name, columns, examples, form) for name in names}


def _value(name: str, *given: Any) -> float:
    """Return the value of a metric as a number that a file can hold, or refuse it."""
    found = METRICS.load(name)(*given)
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = -1.0
    if isinstance(found, float) and name not in scored([name]):
        return value
    if not -_ROUNDING <= value <= 1 + _ROUNDING:
        raise DataError(f"metric {name!r} must return a share from 0 to 1, but returned {found!r}.")
    return min(max(value, 0.0), 1.0)


def answers_of(predictions: Sequence[Any], examples: Sequence[Example], form: TaskFormat) -> str:
    """Return a `1` for each row that is answered rightly, a `0` for others, in their order.

    Empty where the score is no share of right answers: accuracy alone is.
    """
    if tuple(form.metrics) != ("accuracy",):
        return ""
    pairs = zip(predictions, examples, strict=True)
    return "".join(str(int(column in row.answers)) for column, row in pairs)


def mean_score(values: Mapping[str, float]) -> float:
    """Return the score that metrics come to: the mean of those that are shares."""
    return fmean(values[name] for name in scored(values))


def score(
    names: Sequence[str],
    predictions: Sequence[int] | Sequence[Written],
    examples: Sequence[Example],
    form: TaskFormat,
) -> float:
    """Return the task's score, the mean of the metrics; see `compute`."""
    return mean_score(compute(names, predictions, examples, form))


def majority(
    examples: Sequence[Example], form: TaskFormat, names: Sequence[str] | None = None
) -> float:
    """Return the score of the best constant column, the floor under every result.

    For accuracy this is the share of the most common class. Where rows bring choices, only columns
    that every row has are tried. In a task of writing it is the score of one text for all rows, the
    most common reference.
    """
    names = form.metrics if names is None else names
    if form.is_writing:
        texts = Counter(row.references[0] for row in examples if row.references)
        most = Written(texts.most_common(1)[0][0] if texts else "")
        return score(scored(names), [most] * len(examples), examples, form)
    num_columns = max(min((_num_columns(row, form) for row in examples), default=1), 1)
    return max(
        score(names, [column] * len(examples), examples, form) for column in range(num_columns)
    )


def _num_columns(row: Example, form: TaskFormat) -> int:
    return len(row.choices) if form.has_choices else len(form.labels)


def _check_counts(predictions: Sequence[object], examples: Sequence[Example]) -> None:
    if not len(examples):
        raise DataError("rows to score must be at least one, but are 0.")
    if len(predictions) != len(examples):
        raise DataError(
            f"predictions must be one per row, but are {len(predictions)} for {len(examples)} rows."
        )


def _written(
    names: Sequence[str], predictions: Sequence[Any], examples: Sequence[Example]
) -> dict[str, float]:
    """Return the value of each metric of written texts."""
    _check_counts(predictions, examples)
    for row in examples:
        if not row.references:
            raise DataError(f"{row.source}: row to score must have a reference, but has none.")
    check_metrics(names)
    references = [row.references for row in examples]
    return {name: _value(name, predictions, references) for name in names}


def _check(predictions: Sequence[Any], examples: Sequence[Example], form: TaskFormat) -> list[int]:
    _check_counts(predictions, examples)
    columns = []
    for prediction, row in zip(predictions, examples, strict=True):
        try:
            column = operator.index(prediction)
        except TypeError as error:
            raise DataError(
                f"{row.source}: prediction must be a column number, but is {prediction!r}."
            ) from error
        if not _num_columns(row, form):
            raise DataError(f"{row.source}: row to score must have choices, but has 0.")
        if not 0 <= column < _num_columns(row, form):
            raise DataError(
                f"{row.source}: prediction must be a column from 0 to "
                f"{_num_columns(row, form) - 1}, but is {column}."
            )
        if not row.answers and not row.references:
            raise DataError(f"{row.source}: row to score must have an answer, but has none.")
        columns.append(column)
    return columns
