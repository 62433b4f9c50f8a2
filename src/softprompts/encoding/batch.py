"""Batches: encoded examples as padded tensors."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from softprompts.encoding.inputs import EncodedExample, EncodedInput


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
    """Pad encoded examples into a batch.

    Args:
        examples: at least one.
        pad_id: the id put on padding; masked, so any valid id does.

    Returns:
        The batch, on the CPU.
    """
    inputs = [(row, item) for row, example in enumerate(examples) for item in example.inputs]
    items = [item for _, item in inputs]
    targets = [(i, target) for i, item in enumerate(items) for target in item.targets]
    columns = max(example.num_columns for example in examples)
    target_tokens = [target.tokens for _, target in targets]
    marks = [item.marks for item in items]
    return Batch(
        ids=_pad([item.ids for item in items], pad_id),
        attention_mask=_pad([[1] * len(item.ids) for item in items], 0),
        segments=_pad([item.segments for item in items], 0),
        roles=_pad([item.roles for item in items], 0),
        start=torch.tensor([item.start for item in items]),
        end=torch.tensor([item.end for item in items]),
        examples=torch.tensor([row for row, _ in inputs]),
        columns=torch.tensor([item.column for item in items]),
        slots=_pad([item.slots for item in items], 0),
        continuations=torch.tensor([item.num_continuation_tokens for item in items]),
        targets=Targets(
            inputs=torch.tensor([i for i, _ in targets], dtype=torch.long),
            columns=torch.tensor([t.column for _, t in targets], dtype=torch.long),
            tokens=_pad(target_tokens, 0),
            mask=_pad([[1] * len(tokens) for tokens in target_tokens], 0).bool(),
        ),
        valid=torch.tensor([[c < e.num_columns for c in range(columns)] for e in examples]),
        answers=torch.tensor([[c in e.answers for c in range(columns)] for e in examples]),
        items=tuple(items),
        marks=torch.tensor(marks, dtype=torch.long).reshape(len(items), len(marks[0])),
    )


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max((len(row) for row in rows), default=0)
    if not width:
        return torch.empty(len(rows), 0, dtype=torch.long)
    padded = array("q")  # a quarter of the time that tensors take from lists
    for row in rows:
        padded.extend(row)
        padded.extend([value] * (width - len(row)))
    return torch.frombuffer(padded, dtype=torch.long).view(len(rows), width)
