"""Few-shot samples and held-out parts of the training rows.

The class of a row is its right column. Rows with several right columns, or with choices whose
number varies (ReCoRD), have no class. Every draw comes from a generator of its own; the order of
the rows is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from softprompts.errors import DataError
from softprompts.examples import Example, TaskFormat
from softprompts.seeding import derive

Rows = tuple[Example, ...]


def sample_few_shot(
    train: Sequence[Example],
    form: TaskFormat,
    *,
    shots: int | None = None,
    shots_total: int | None = None,
    seed: int = 0,
) -> Rows:
    """Draw a few training rows in their old order; all where neither number is given.

    `shots` are rows per class; `shots_total` are rows in all, one of each class that `train` has
    and the others uniformly. With one seed a smaller sample is part of every larger one of the same
    kind. MultiRC rows are single proposed answers. The stream's name is `few-shot`.
    """
    if shots is None and shots_total is None:
        return tuple(train)
    if shots is not None and shots_total is not None:
        raise DataError(
            f"`shots` and `shots_total` must not both be given, but are {shots} and {shots_total}."
        )
    for name, value in (("shots", shots), ("shots_total", shots_total)):
        if value is not None and value < 1:
            raise DataError(f"`{name}` must be at least 1, but is {value}.")
    order = [int(i) for i in _generator(seed, "few-shot").permutation(len(train))]
    classes = row_classes(train)
    if shots_total is not None:
        kept = _draw_total(order, classes or [0] * len(train), shots_total)
    else:
        assert shots is not None
        kept = _draw_per_class(order, classes, form, shots)
    return tuple(train[index] for index in sorted(kept))


def sample_reported(rows: Sequence[Example], count: int | None) -> Rows:
    """Draw some of the rows to report, the same for every run, in their old order.

    Rows that share a `group` stay together, so there may be a few more than asked for; all are
    taken where `count` is `None`. The stream's name is `reported`, its seed 0.
    """
    if count is None:
        return tuple(rows)
    if not 1 <= count <= len(rows):
        raise DataError(
            f"`num_items` must be 1 to the {len(rows)} rows of the reported split, but is {count}."
        )
    units = _units([row.group for row in rows])
    kept: list[int] = []
    for place in _generator(0, "reported").permutation(len(units)):
        if len(kept) < count:
            kept += units[int(place)]
    return tuple(rows[index] for index in sorted(kept))


def split_held_out(train: Sequence[Example], fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Cut the training rows in two: what is trained on, and what selects the model.

    Each class gives `fraction` of its rows, rounded, but at least one, and never its last: a class
    with a single row stays in the training part. Rows that share a passage (the part of `group`
    before its last `/`) stay together, or if that leaves nothing to hold out, rows that share a
    `group`; then the class shares are as near as whole passages allow. Both parts are in their old
    order; the stream's name is `held-out`.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(f"`fraction` must be in (0, 1), but is {fraction}.")
    classes = row_classes(train) or [0] * len(train)
    counts = Counter(classes)
    target = {
        name: min(max(int(fraction * count + 0.5), 1), count - 1) for name, count in counts.items()
    }
    groups = [row.group for row in train]
    for keys in ([group.rpartition("/")[0] or group for group in groups], groups):
        held = _hold_out(_units(keys), classes, target, seed)
        if held:
            kept = tuple(row for index, row in enumerate(train) if index not in held)
            return kept, tuple(train[index] for index in sorted(held))
    num_groups = len({group for group in groups if group})
    where = f"{len(counts)} classes" + (f" and {num_groups} groups" if num_groups else "")
    raise DataError(
        f"training rows must leave one to hold out beside one of every class, but are {len(train)} "
        f"rows in {where}. Take more rows, or set `training.selection` to last, which needs no "
        "held-out rows."
    )


def row_classes(rows: Sequence[Example]) -> list[int] | None:
    """Return the class of each row: its right column.

    It is `None` where rows have none, several, or choices whose number varies.
    """
    if any(len(row.answers) != 1 for row in rows) or len({len(row.choices) for row in rows}) > 1:
        return None
    return [row.answers[0] for row in rows]


def class_name(form: TaskFormat, column: int) -> str:
    """Return what messages call a class: its label, or the choice's number."""
    return f"choice {column + 1}" if form.has_choices else form.labels[column]


def same_rows(rows: Sequence[tuple[Example, ...]], split: str) -> tuple[Example, ...]:
    """Return the rows of a split that all runs have, or raise a `DataError`."""
    others = [place for place, own in enumerate(rows) if own != rows[0]]
    if others:
        raise DataError(
            f"split {split!r} must be the same rows for all members of an ensemble, but members "
            f"1 and {others[0] + 1} have others, as their seeds draw them."
        )
    return rows[0]


def _generator(seed: int, stream: str) -> np.random.Generator:
    return np.random.default_rng(derive(seed, stream))


def _draw_total(order: Sequence[int], classes: Sequence[int], total: int) -> list[int]:
    num_classes = len(set(classes))
    if total > len(classes):
        raise DataError(
            f"`shots_total` must be at most the {len(classes)} training rows, but is {total}."
        )
    if total < num_classes:
        raise DataError(
            f"`shots_total` must give a row to each of {num_classes} classes, but is {total}."
        )
    first = {classes[index]: index for index in reversed(order)}
    return sorted(order, key=lambda index: first[classes[index]] != index)[:total]


def _draw_per_class(
    order: Iterable[int], classes: Sequence[int] | None, form: TaskFormat, shots: int
) -> list[int]:
    if classes is None or form.is_writing:
        raise DataError(
            f"`shots` must be left out for {form.name}, whose rows have no class of their own, but "
            f"is {shots}. Use `shots_total`."
        )
    counts = Counter(classes)
    for column in sorted(counts):
        if counts[column] < shots:
            raise DataError(
                f"`shots` must be at most the rows of each class, but is {shots} and "
                f"{class_name(form, column)!r} has {counts[column]}."
            )
    drawn: Counter[int] = Counter()
    kept = []
    for index in order:
        drawn[classes[index]] += 1
        if drawn[classes[index]] <= shots:
            kept.append(index)
    return kept


def _units(keys: Sequence[str]) -> list[list[int]]:
    """Gather rows by key; a row without a key stands alone."""
    units: dict[str | int, list[int]] = {}
    for index, key in enumerate(keys):
        units.setdefault(key or index, []).append(index)
    return list(units.values())


def _hold_out(
    units: list[list[int]], classes: Sequence[int], target: dict[int, int], seed: int
) -> set[int]:
    """Take units in random order while each brings the class counts nearer to the target."""
    left = Counter(classes)
    missing = dict(target)
    held: set[int] = set()
    for position in _generator(seed, "held-out").permutation(len(units)):
        unit = units[int(position)]
        brings = Counter(classes[index] for index in unit)
        gain = sum(abs(missing[c]) - abs(missing[c] - n) for c, n in brings.items())
        if gain <= 0 or any(left[c] <= n for c, n in brings.items()):
            continue
        held.update(unit)
        left.subtract(brings)
        for c, n in brings.items():
            missing[c] -= n
    return held


def draw_demonstrations(train: Sequence[Example], most: int | None, seed: int) -> Rows:
    """Draw training rows to be shown in front of an input; all of them where `most` is `None`.

    Classes take turns, so that a few rows show each; where rows have no class, any row may come
    next. The order in which they are shown is a draw of its own. The streams' names are
    `demonstrations` and `demonstration-order`.
    """
    order = [int(i) for i in _generator(seed, "demonstrations").permutation(len(train))]
    classes = row_classes(train) or [0] * len(train)
    turns: Counter[int] = Counter()
    rounds: list[tuple[int, int, int]] = []
    for place, index in enumerate(order):
        rounds.append((turns[classes[index]], place, index))
        turns[classes[index]] += 1
    chosen = [index for _, _, index in sorted(rounds)[:most]]
    shuffled = _generator(seed, "demonstration-order").permutation(len(chosen))
    return tuple(train[chosen[int(i)]] for i in shuffled)
