"""Positions: where the rows of a prompt stand among the tokens of an input."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from softprompts.errors import PromptError
from softprompts.prompts.draws import Draws
from softprompts.prompts.part import Part
from softprompts.prompts.selection import select


@dataclass(frozen=True)
class Edges:
    """The places of a batch's inputs where rows may stand, as token indices to stand before.

    Attributes:
        start: in front of the input. Shape `(batch,)`.
        end: behind the input. Shape `(batch,)`.
        marks: marked places between, in order. Shape `(batch, marks)`; without columns where
            nothing is marked.
    """

    start: Tensor
    end: Tensor
    marks: Tensor

    @property
    def batch(self) -> int:
        """Number of inputs."""
        return self.start.shape[0]


@dataclass(frozen=True)
class Placement:
    """Where rows stand, for each input.

    Attributes:
        anchors: token index before which each row stands, not falling along the rows. Shape
            `(batch, length)`.
        weights: one-hot at the split, with the selector's gradient; `None` where nothing selects.
            Shape `(batch, length + 1)`.
        logits: the selector's logits, without noise; likewise. Shape `(batch, length + 1)`.
    """

    anchors: Tensor
    weights: Tensor | None = None
    logits: Tensor | None = None


class Position(Part):
    """Where rows go.

    Args:
        length: number of rows.
        width: width of instance vectors.
        generator: draws the selector's first weights.

    Attributes:
        needs_marks: whether rows stand at marked places, so that the template must have some.
        has_front: whether a row may stand in front of the input.
        after_bos: whether rows in front of a decoder's input stand behind the tokens that it
            begins with, where the tokenizer puts some there.
    """

    needs_marks = False
    has_front = True
    after_bos = False

    @abstractmethod
    def __init__(self, length: int, width: int, generator: Generator, **options: Any) -> None:
        super().__init__()
        self.length = length

    @abstractmethod
    def forward(self, edges: Edges, instances: Tensor | None, draws: Draws | None) -> Placement:
        """Place the rows.

        `draws` give noise and temperature; `None` means evaluation. Shape of `instances`, where the
        kind needs them, `(batch, width)`.
        """


def require_rows(length: int) -> None:
    """Check that there is something to place."""
    if not length:
        raise PromptError("`prompt.length` must be at least 1 for a learned position, but is 0.")


def choose_split(logits: Tensor, edges: Edges, draws: Draws | None) -> Placement:
    """Choose how many rows stand in front of each input.

    There is a logit for each split. Shape `(batch, length + 1)`.
    """
    weights = select(logits, draws, "position")
    length = logits.shape[1] - 1
    places = anchors(weights.argmax(dim=1), length, edges.start, edges.end)
    return Placement(places, weights, logits)


def anchors(split: Tensor, length: int, start: Tensor, end: Tensor) -> Tensor:
    """Return the token index before which each row stands.

    They do not fall along the rows. Shapes `(batch,)` of all given and `(batch, length)`.
    """
    is_front = torch.arange(length, device=split.device) < split[:, None]  # (batch, length)
    return torch.where(is_front, start[:, None], end[:, None])
