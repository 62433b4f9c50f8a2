"""Active lengths: how many of a prompt's rows take part."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from softprompts.errors import PromptError
from softprompts.prompts.draws import Draws
from softprompts.prompts.part import Part


@dataclass(frozen=True)
class Activity:
    """How many rows are active, for each input; the first ones are.

    Attributes:
        weights: one-hot at the number of active rows, with the selector's gradient; `None` where
            all rows always are. Shape `(batch, length + 1)`.
        logits: the selector's logits, without noise; `None` where nothing selects. Shape
            `(batch, length + 1)`.
    """

    weights: Tensor | None = None
    logits: Tensor | None = None

    @property
    def gates(self) -> Tensor | None:
        """Weight of each row in attention, 0 or 1 in value; `None` where all are 1.

        `g_j = sum_{n > j} w_n`: row `j`, from 0, is active when more than `j` rows are. Shape
        `(batch, length)`.
        """
        if self.weights is None:
            return None
        return self.weights[:, 1:].flip(1).cumsum(dim=1).flip(1)


ALL = Activity()
"""All rows are active, for each input."""


class ActiveLength(Part):
    """How many rows are active.

    Args:
        length: number of rows there are.
        width: width of instance vectors.
        generator: draws the selector's first weights.

    Attributes:
        is_whole: whether all rows always are, so that there is nothing to ask.
    """

    is_whole = False

    @abstractmethod
    def __init__(self, length: int, width: int, generator: Generator, **options: Any) -> None:
        super().__init__()
        self.length = length

    @abstractmethod
    def forward(self, batch: int, instances: Tensor | None, draws: Draws | None) -> Activity:
        """Choose how many rows are active.

        `draws` give noise and temperature; `None` means evaluation. Shape of `instances`, where the
        kind needs them, `(batch, width)`.
        """


def first_logits(length: int, start: int | None, lead: float) -> Tensor:
    """Return a selector's first logits: one length leads the others.

    That of `start`, or of all rows when `None`, is `lead`; the others are 0. Shape `(length + 1,)`.
    """
    if not length:
        raise PromptError("`prompt.length` must be at least 1 for a learned length, but is 0.")
    check_count("start", start, length)
    logits = torch.zeros(length + 1)
    logits[length if start is None else start] = lead
    return logits


def check_count(name: str, count: int | None, length: int) -> None:
    """Check that there are as many rows as an option asks for."""
    if count is not None and not 0 <= count <= length:
        raise PromptError(f"`prompt.active_length.{name}` must be 0 to {length}, but is {count}.")
