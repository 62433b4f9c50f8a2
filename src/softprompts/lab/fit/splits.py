"""Which rows a prompt is trained on and which are held back, and what is odd about them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softprompts.errors import DataError
from softprompts.lab.fit.table import Table

HELD_BACK_FRACTION = 0.2
MOST_HELD_BACK = 500
FEW_PER_LABEL = 8
"""Training rows of a label below which a warning is due."""

Row = Mapping[str, str]


@dataclass(frozen=True)
class Splits:
    """Disjoint rows: to train and choose prompts on, and to score once; and what is odd of them."""

    train: Sequence[Row]
    held_back: Sequence[Row]
    remarks: Sequence[str]


def split_rows(table: Table, seed: int = 0) -> Splits:
    """Hold rows back, the same share of every label; rows that read the same are never in both.

    Raises:
        DataError: if a label has fewer than three distinct rows.
    """
    rows, remarks = _distinct(table)
    by_label: dict[str, list[Row]] = {label: [] for label in table.labels}
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
    draw, train, held_back = random.Random(seed), [], []
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


def _distinct(table: Table) -> tuple[list[Row], list[str]]:
    """Return the rows without those that repeat another, and what is to be said of them."""
    first: dict[tuple[str, ...], Row] = {}
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


def _telltales(table: Table, rows: Sequence[Row]) -> list[str]:
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
