"""Batches: encoded examples as padded tensors, and which of them waste little padding together."""

from __future__ import annotations

from array import array
from collections.abc import Container, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from softprompts.encoding.inputs import EncodedExample, EncodedInput, Target


@dataclass(frozen=True)
class Targets:
    """Label tokens to be read by a language head; one row per (input, column).

    Attributes:
        inputs: input that a target is read from. Shape `(targets,)`.
        columns: label or choice. Shape `(targets,)`.
        tokens: token ids, 0 where `mask` is off. Shape `(targets, width)`.
        mask: which of them count. Shape `(targets, width)`.
    """

    inputs: Tensor
    columns: Tensor
    tokens: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Batch:
    """Examples side by side, each as one or more right-padded inputs.

    Attributes:
        ids: token ids. Shape `(inputs, tokens)`.
        attention_mask: 1 on tokens, 0 on padding. Shape `(inputs, tokens)`.
        segments: segment ids. Shape `(inputs, tokens)`.
        roles: `Role` per token. Shape `(inputs, tokens)`.
        start: where the prompt's first rows stand. Shape `(inputs,)`.
        end: where its last rows stand. Shape `(inputs,)`.
        examples: the example of each input. Shape `(inputs,)`.
        columns: the choice an input scores, or -1. Shape `(inputs,)`.
        slots: mask tokens per input, 0 where there is none. Shape `(inputs, slots)`.
        continuations: label tokens at the end of an input. Shape `(inputs,)`.
        targets: what a language head reads.
        valid: which columns each example has. Shape `(batch, labels)`.
        answers: which columns are right. Shape `(batch, labels)`.
        items: the encoded inputs, in order.
        marks: where rows at marked places stand; as many in each input, since one template made
            them. Shape `(inputs, marks)`.
    """

    ids: Tensor
    attention_mask: Tensor
    segments: Tensor
    roles: Tensor
    start: Tensor
    end: Tensor
    examples: Tensor
    columns: Tensor
    slots: Tensor
    continuations: Tensor
    targets: Targets
    valid: Tensor
    answers: Tensor
    items: tuple[EncodedInput, ...]
    marks: Tensor

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.valid.shape[0]

    @property
    def first_answers(self) -> Tensor:
        """First right column of each example, -1 where there is none. Shape `(batch,)`."""
        first = self.answers.long().argmax(dim=1)
        return torch.where(self.answers.any(dim=1), first, -1)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        if self.ids.device == device:
            return self
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Targets):
                value = Targets(*(getattr(value, part.name).to(device) for part in fields(value)))
            elif isinstance(value, Tensor):
                value = value.to(device)
            moved[field.name] = value
        return Batch(**moved)


def collate(examples: Sequence[EncodedExample], pad_id: int) -> Batch:
    """Pad encoded examples, at least one, into a batch on the CPU."""
    items: list[EncodedInput] = []
    rows: list[int] = []
    answers: list[list[bool]] = []
    counts = torch.tensor(list(map(attrgetter("num_columns"), examples)))
    columns = int(counts.max())
    for row, example in enumerate(examples):
        items += example.inputs
        rows += [row] * len(example.inputs)
        answers.append([column in example.answers for column in range(columns)])
    sources: list[int] = []
    targets: list[Target] = []
    for place, item in enumerate(items):
        sources += [place] * len(item.targets)
        targets += item.targets
    ids, tokens = list(map(attrgetter("ids"), items)), list(map(attrgetter("tokens"), targets))
    marks = list(map(attrgetter("marks"), items))
    return Batch(
        ids=_pad(ids, pad_id),
        attention_mask=_first(ids).long(),
        segments=_pad(list(map(attrgetter("segments"), items)), 0),
        roles=_pad(list(map(attrgetter("roles"), items)), 0),
        start=torch.tensor(list(map(attrgetter("start"), items))),
        end=torch.tensor(list(map(attrgetter("end"), items))),
        examples=torch.tensor(rows),
        columns=torch.tensor(list(map(attrgetter("column"), items))),
        slots=_pad(list(map(attrgetter("slots"), items)), 0),
        continuations=torch.tensor(list(map(attrgetter("num_continuation_tokens"), items))),
        targets=Targets(
            inputs=torch.tensor(sources, dtype=torch.long),
            columns=torch.tensor(list(map(attrgetter("column"), targets)), dtype=torch.long),
            tokens=_pad(tokens, 0),
            mask=_first(tokens),
        ),
        valid=torch.arange(columns) < counts[:, None],
        answers=torch.tensor(answers),
        items=tuple(items),
        marks=torch.tensor(marks, dtype=torch.long).reshape(len(items), len(marks[0])),
    )


def _first(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return which places inputs fill, padded to the longest. Shape `(inputs, tokens)`."""
    counts = torch.tensor(list(map(len, rows)), dtype=torch.long)
    return torch.arange(max(map(len, rows), default=0)) < counts[:, None]


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows), default=0)
    if not width:
        return torch.empty(len(rows), 0, dtype=torch.long)
    padded = array("q")  # a quarter of the time that tensors take from lists
    for row in rows:
        padded.extend(row)
        padded.extend([value] * (width - len(row)))
    return torch.frombuffer(padded, dtype=torch.long).view(len(rows), width)


def cut_by_size(
    sizes: Sequence[int],
    max_count: int,
    overhead: int,
    *,
    counts: Sequence[int] | None = None,
    most: int | None = None,
    allowed: Container[int] | None = None,
) -> list[list[int]]:
    """Cut things into groups in which all cost as much as the largest.

    Among all cuts of the things sorted by size, the cheapest is returned, where a group costs
    `parts * largest + overhead`.

    Args:
        sizes: what each part of a thing costs by itself.
        max_count: most things in a group.
        overhead: cost of one more group.
        counts: parts of each thing; one each when `None`.
        most: most that a group may cost beside its overhead; one thing may cost more alone. `None`
            sets no bound.
        allowed: numbers of things that a group may have, 1 among them; `None` allows all.

    Returns:
        Indices per group, every thing once, largest first.

    Example:
        >>> cut_by_size([3, 100, 4, 90], max_count=4, overhead=20)
        [[1, 3], [2, 0]]
        >>> cut_by_size([3, 100, 4, 90], max_count=4, overhead=20, most=150)
        [[1], [3], [2, 0]]
        >>> cut_by_size([3, 3, 3], max_count=3, overhead=9, allowed={1, 2})
        [[0], [1, 2]]
    """
    order = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)  # equal ones in order
    parts = [0, *accumulate([1] * len(order) if counts is None else map(counts.__getitem__, order))]
    bound = float("inf") if most is None else most
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the first n things, and their last cut
    for stop in range(1, len(order) + 1):
        choices = []
        for first in range(max(0, stop - max_count), stop):
            if allowed is not None and stop - first not in allowed:
                continue
            cost = (parts[stop] - parts[first]) * sizes[order[first]]
            if cost <= bound or stop - first == 1:
                choices.append((best[first][0] + cost + overhead, first))
        best.append(min(choices))
    cuts, stop = [], len(order)
    while stop:
        first = best[stop][1]
        cuts.append(order[first:stop])
        stop = first
    return cuts[::-1]
