"""One raw row with typed access: every wrong value becomes an error with file, line and field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softprompts.errors import DataError

BOOLEAN_LABELS = ("False", "True")
_SHOWN = 80


def shown(value: object) -> str:
    """Return `repr(value)` on one line, cut to a length that fits in a message."""
    text = " ".join(map(str.strip, repr(value).splitlines()))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def text_problem(value: object) -> str | None:
    """Return why a value is not text that can be read, or `None` if it is.

    Example:
        >>> text_problem(7)
        'must be text, but is 7.'
    """
    if not isinstance(value, str):
        return f"must be text, but is {shown(value)}."
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"must be valid Unicode, but has half a pair at {error.start}."
    return None


def refuse_wrong_texts(texts: Mapping[Any, object], source: str | None) -> None:
    """Refuse names of fields, or their values, that are not text that can be read."""
    for name, value in texts.items():
        if text_problem(name):
            raise DataError(f"names of fields must be text, but one is {shown(name)}.", file=source)
        problem = text_problem(value)
        if problem:
            raise DataError(problem, file=source, field=name)


@dataclass(frozen=True, slots=True)
class Row:
    """A row, or a mapping nested in one, and where it comes from.

    Whoever asks for a value that is missing, or of another kind than asked for, gets a `DataError`
    with file, line and field.
    """

    values: Mapping[str, Any]
    file: str
    line: int
    prefix: str = ""
    needs_label: bool = True

    @property
    def source(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"

    def error(self, field: str, reason: str) -> DataError:
        """Return a `DataError` that names this row and `field`."""
        return DataError(reason, file=self.file, line=self.line, field=self.prefix + field)

    def value(self, field: str) -> Any:
        """Return a field as it is."""
        if field not in self.values:
            fields = ", ".join(map(repr, self.values)) or "no field"
            raise self.error(field, f"must be present, but the row has {shown_plain(fields)}.")
        return self.values[field]

    def text(self, field: str) -> str:
        """Return a text field."""
        return self._text(field, self.value(field))

    def texts(self, field: str) -> list[str]:
        """Return a field that is a list of texts."""
        return [
            self._text(f"{field}[{index}]", value) for index, value in enumerate(self._list(field))
        ]

    def word(self, field: str) -> str:
        """Return a text or a finite number as text; for users' own files."""
        value = self.value(field)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(field, f"must be text or a number, but is {shown(value)}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(field, f"must be a finite number, but is {value}.")
        return self._text(field, str(value))

    def integer(self, field: str) -> int:
        """Return a whole number of 0 or more."""
        value = self.value(field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(field, f"must be a whole number ≥ 0, but is {shown(value)}.")
        return value

    def child(self, field: str) -> Row:
        """Return a nested mapping as a row of its own."""
        return self._nested(field, self.value(field))

    def children(self, field: str) -> list[Row]:
        """Return a list of nested mappings as rows."""
        return [
            self._nested(f"{field}[{index}]", value)
            for index, value in enumerate(self._list(field))
        ]

    def has_label(self, field: str) -> bool:
        """Whether the row has a label, as it must if `needs_label`; None, "" and -1 are none."""
        value = self.values.get(field)
        is_unmarked = isinstance(value, int) and not isinstance(value, bool) and value == -1
        if value is not None and value != "" and not is_unmarked:
            return True
        if self.needs_label:
            self.value(field)
            raise self.error(field, f"must be a label, but is {value!r}.")
        return False

    def references(self, field: str) -> tuple[str, ...]:
        """Return the texts to write: one text or number, or a list of texts, none of them blank.

        A field behind dots is one of a nested mapping. There is none where the row has none and
        `needs_label` is not set.
        """
        first, _, rest = field.partition(".")
        if rest and field not in self.values and self.has_label(first):
            return self.child(first).references(rest)
        if not self.has_label(field if field in self.values else first):
            return ()
        is_list = isinstance(self.values[field], list | tuple)
        found = self.texts(field) if is_list else [self.word(field)]
        if not (found or not self.needs_label) or not all(map(str.strip, found)):
            raise self.error(field, f"must be text to write, but is {shown(self.values[field])}.")
        return tuple(found)

    def label(self, field: str, labels: Sequence[str]) -> tuple[int, ...]:
        """Return the column of a label by name, or for False and True also by JSON boolean, 0 or 1.

        There is none where the row has no label.
        """
        if not self.has_label(field):
            return ()
        value = self.values[field]
        if tuple(labels) == BOOLEAN_LABELS and isinstance(value, int) and value in (0, 1):
            return (int(value),)
        if not isinstance(value, str) or value not in labels:
            raise self.error(field, f"must be one of {', '.join(labels)}, but is {shown(value)}.")
        return (labels.index(value),)

    def _text(self, field: str, value: object) -> str:
        problem = text_problem(value)
        if problem:
            raise self.error(field, problem)
        return str(value)

    def _list(self, field: str) -> Sequence[Any]:
        value = self.value(field)
        if not isinstance(value, list | tuple):
            raise self.error(field, f"must be a list, but is {shown(value)}.")
        return value

    def _nested(self, field: str, value: object) -> Row:
        if not isinstance(value, Mapping):
            raise self.error(field, f"must be an object, but is {shown(value)}.")
        prefix = f"{self.prefix}{field}."
        return Row(value, self.file, self.line, prefix, self.needs_label)


def shown_plain(text: str) -> str:
    """Return `text` without line breaks, cut to a length that fits in a message."""
    text = " ".join(text.split())
    return text if len(text) <= 2 * _SHOWN else text[: 2 * _SHOWN - 1] + "…"
