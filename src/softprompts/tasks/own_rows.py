"""Rows that name a task's own template fields: how files for bundled tasks look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from softprompts.examples import Example
from softprompts.tasks.rows import Row


def convert_own_row(row: Row, fields: Sequence[str], labels: Sequence[str]) -> Iterator[Example]:
    """Yield the example of a row whose fields are the task's own.

    Args:
        row: the row.
        fields: the fields of the task's examples.
        labels: label names in column order.

    Yields:
        One example, with the label in the field `label` where there is one.

    Raises:
        DataError: if a field is missing or wrong.
    """
    values = {name: row.text(name) for name in fields}
    yield Example(values, row.label("label", labels), source=row.source)
