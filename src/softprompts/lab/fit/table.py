"""A table of examples: rows as plain texts, text and label columns, and rows that are held back."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompts.errors import DataError
from softprompts.storage import is_file
from softprompts.tasks.reading import HubSplit, read_file, read_hub
from softprompts.tasks.rows import Row, shown

LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "sentiment", "intent", "topic"),
    *("answer", "gold", "y", "tag", "rating", "stars"),
)
"""Names of columns that are taken for the label, the first that is there."""

MOST_LABELS = 50
HELD_BACK_FRACTION = 0.2
MOST_HELD_BACK = 500
FEW_PER_LABEL = 8
"""Training rows of a label below which a warning is due."""

Texts = Mapping[str, str]
"""A row, by field."""


@dataclass(frozen=True)
class Table:
    """Rows out of a file or a hub set, texts by field; nested fields are called `outer_inner`.

    Attributes:
        fields: the fields that are read, in order.
        label: the field with the label.
        left_out: why a field is not read, by its name.
        num_skipped: rows that were bad and left out.
    """

    name: str
    rows: Sequence[Texts]
    fields: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    left_out: Mapping[str, str]
    num_skipped: int


def read_table(
    source: str, label: str | None = None, text: Sequence[str] = (), *, skip_bad_rows: bool = False
) -> Table:
    """Read a table and find its columns; see `fit` for the arguments.

    Raises:
        DataError: if the file is missing or broken, a row is bad, or the columns cannot be told.
    """
    rows, num_skipped = _rows(source, skip_bad_rows)
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    values = {name: [row.get(name) for _, row in rows] for name in columns}
    label = _label(source, values, label, text)
    fields, left_out = _fields(source, values, label, text)
    whole = []
    for place, row in rows:
        lacking = next((n for n in (label, *fields) if not (row.get(n) or "").strip()), None)
        if lacking is None:
            whole.append({name: str(row[name]) for name in (*fields, label)})
        elif skip_bad_rows:
            num_skipped += 1
        else:
            raise place.error(
                lacking, "must have a value, but has none. --skip-bad-rows counts it."
            )
    labels = tuple(sorted({row[label] for row in whole}))
    if not 2 <= len(labels) <= MOST_LABELS:
        few = ", ".join(labels[:5])
        text_ = f"must have 2 to {MOST_LABELS} labels, but has {len(labels)} ({few}, …)."
        raise DataError(text_, file=source, field=label)
    return Table(source, whole, fields, label, labels, left_out, num_skipped)


def _rows(source: str, skip_bad_rows: bool) -> tuple[list[tuple[Row, dict[str, str | None]]], int]:
    """Return the rows as texts, and how many bad ones were left out."""
    found, num_skipped = [], 0
    origin: dict[str, str] = {}
    path = Path(source)
    if is_file(path) or path.suffix:
        items = read_file(path, needs_label=False)
    else:
        items = read_hub(HubSplit(source, None, "train"))
    for item in items:
        try:
            if isinstance(item, DataError):
                raise item
            flat = dict(_flat(item))
            for name in flat:
                if origin.setdefault(plain_name(name), name) != name:
                    raise item.error(
                        name, f"must differ from {origin[plain_name(name)]!r} in letters or digits."
                    )
            found.append((item, {plain_name(name): given for name, given in flat.items()}))
        except DataError:
            if not skip_bad_rows:
                raise
            num_skipped += 1
    if not found:
        raise DataError("must hold at least one row, but has none.", file=source)
    return found, num_skipped


def _flat(row: Row, values: Mapping[str, Any] | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield a row's texts, numbers and truth values by field; lists hold none of them."""
    for name, value in (row.values if values is None else values).items():
        if isinstance(value, Mapping):
            inner = {f"{name}.{key}": one for key, one in value.items()}
            yield from _flat(row, inner)
        elif value is None or isinstance(value, bool):
            yield name, None if value is None else str(value).lower()
        elif isinstance(value, str | int | float):
            yield name, Row({name: value}, row.file, row.line).word(name)
        elif not isinstance(value, list):
            raise row.error(name, f"must be text or a number, but is {shown(value)}.")


def plain_name(name: str) -> str:
    """Return a field's name as templates take it.

    Example:
        >>> plain_name("review.full text")
        'review_full_text'
    """
    plain = re.sub(r"\W+", "_", name).strip("_")
    return plain if plain.isidentifier() else f"field_{plain}"


def _label(
    source: str, values: Mapping[str, Sequence[str | None]], label: str | None, text: Sequence[str]
) -> str:
    if label is not None:
        return _known(source, values, label, "--label")
    others = [name for name in values if name not in map(plain_name, text)]
    lower = {name.lower(): name for name in others}
    named = next((lower[name] for name in LABEL_NAMES if name in lower), None)
    if named is not None:
        return named
    few = [name for name in others if _is_label(values[name])]
    if len(few) != 1:
        found = f"{', '.join(few)} have" if few else "none has"
        raise DataError(
            f"`--label` must name the column with the label, since {found} few values that come "
            f"again and again, among {', '.join(values)}.",
            file=source,
        )
    return few[0]


def _is_label(values: Sequence[str | None]) -> bool:
    """Return whether values are few, come again, and are short."""
    given = Counter(value for value in values if value)
    is_few = 2 <= len(given) <= min(MOST_LABELS, max(2, len(values) // 4))
    return is_few and max(map(len, given)) <= 40


def _fields(
    source: str, values: Mapping[str, Sequence[str | None]], label: str, text: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the columns that are read, and why others are not."""
    if text:
        fields = tuple(dict.fromkeys(_known(source, values, name, "--text") for name in text))
        if label in fields:
            raise DataError(f"`--text` must not name the label, but has {label!r}.", file=source)
        return fields, {}
    others = [name for name in values if name != label]
    reasons = {name: _reason(values[name], values[label]) for name in others}
    left_out = {name: reason for name, reason in reasons.items() if reason is not None}
    fields = tuple(name for name in others if name not in left_out)
    if not fields:
        said = "; ".join(f"{name} {reason}" for name, reason in left_out.items()) or "none"
        raise DataError(
            f"`--text` must name a column to read, since none holds words: {said}.", file=source
        )
    return fields, left_out


def _reason(values: Sequence[str | None], labels: Sequence[str | None]) -> str | None:
    """Return why a column is not read of its own accord, or `None`."""
    given = [value for value in values if value]
    if len(set(given)) < 2:
        return "says the same in every row"
    told: dict[str, set[str | None]] = {}
    for value, own in zip(values, labels, strict=True):
        if value:
            told.setdefault(value, set()).add(own)
    is_repeated = len(told) <= len(given) / 2
    if is_repeated and all(len(own) == 1 for own in told.values()):
        return "gives the label away: each of its values has one label"
    if sum(" " in value.strip() for value in given) < len(given) / 2:
        return "holds no words: most of its values are single ones or numbers"
    return None


def _known(source: str, values: Mapping[str, object], name: str, option: str) -> str:
    if plain_name(name) not in values:
        raise DataError(
            f"`{option}` must be one of {', '.join(values)}, but is {name!r}.", file=source
        )
    return plain_name(name)


@dataclass(frozen=True)
class Splits:
    """Disjoint rows: to train and choose prompts on, and to score once; and what is odd of them."""

    train: Sequence[Texts]
    held_back: Sequence[Texts]
    remarks: Sequence[str]


def split_rows(table: Table) -> Splits:
    """Hold rows back, the same share of every label; rows that read the same are never in both.

    Raises:
        DataError: if a label has fewer than three distinct rows.
    """
    rows, remarks = _distinct(table)
    by_label: dict[str, list[Texts]] = {label: [] for label in table.labels}
    for row in rows:
        by_label[row[table.label]].append(row)
    for label, own in by_label.items():
        if len(own) < 3:
            raise DataError(
                f"label {label!r} must have at least 3 distinct rows, but has {len(own)}.",
                file=table.name,
                field=table.label,
            )
    share = min(HELD_BACK_FRACTION, MOST_HELD_BACK / len(rows))
    draw, train, held_back = random.Random(0), [], []
    for own in by_label.values():
        draw.shuffle(own)
        count = max(1, round(share * len(own)))
        held_back += own[:count]
        train += own[count:]
    draw.shuffle(train)
    draw.shuffle(held_back)
    remarks += [f"column {name} is not read: it {why}" for name, why in table.left_out.items()]
    if table.num_skipped:
        remarks.append(f"{table.num_skipped} bad rows are left out")
    few = [label for label, own in by_label.items() if len(own) * (1 - share) < FEW_PER_LABEL]
    if few:
        remarks.append(
            f"there are few rows: {', '.join(few)} {'has' if len(few) == 1 else 'have'} fewer than "
            f"{FEW_PER_LABEL} to train on"
        )
    return Splits(train, held_back, [*remarks, *_telltales(table, rows)])


def _distinct(table: Table) -> tuple[list[Texts], list[str]]:
    """Return the rows without those that repeat another, and what is to be said of them."""
    first: dict[tuple[str, ...], Texts] = {}
    repeated, conflicts = 0, set()
    for row in table.rows:
        key = tuple(" ".join(row[name].split()).casefold() for name in table.fields)
        kept = first.setdefault(key, row)
        if kept is row:
            continue
        repeated += 1
        if kept[table.label] != row[table.label]:
            conflicts.add(key)
    rows = [row for key, row in first.items() if key not in conflicts]
    remarks = []
    if repeated:
        remarks.append(f"{repeated} rows read as another one does and are left out")
    if conflicts:
        remarks.append(f"{len(conflicts)} inputs come with several labels and are left out")
    if not rows:
        raise DataError("must hold rows with one label each, but has none.", file=table.name)
    return rows, remarks


def _telltales(table: Table, rows: Sequence[Texts]) -> list[str]:
    """Say which labels stand in their own rows' text and in hardly any other's."""
    remarks = []
    for label in table.labels:
        word = label.casefold()
        if len(word) < 3:
            continue
        said = [r for r in rows if any(word in r[name].casefold() for name in table.fields)]
        num_own = sum(row[table.label] == label for row in rows)
        num_said = sum(row[table.label] == label for row in said)
        if num_said >= 0.9 * num_own and len(said) - num_said <= 0.02 * len(rows):
            text = f"the text gives label {label} away: nearly all of its rows say the word"
            remarks.append(text)
    return remarks
