"""The prompt: rows and where they go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor, nn

from softprompts.prompts.positions.base import Position
from softprompts.prompts.rows.base import Rows


@dataclass(frozen=True)
class PromptOutput:
    """What a prompt emits for a batch.

    Attributes:
        rows: prompt rows, float32. Shape `(batch, length, hidden)`.
        anchors: token index before which each row stands. Shape `(batch, length)`.
    """

    rows: Tensor
    anchors: Tensor


@final
class Prompt(nn.Module):
    """The trainable prompt; it knows nothing of tasks, losses or model families.

    Args:
        rows: how the rows are parameterized.
        position: where they go.
    """

    def __init__(self, rows: Rows, position: Position) -> None:
        super().__init__()
        self.rows = rows
        self.position = position

    @property
    def length(self) -> int:
        """Number of rows."""
        return self.position.length

    def forward(
        self, start: Tensor, end: Tensor, generator: Generator | None = None
    ) -> PromptOutput:
        """Return rows and places for a batch.

        Args:
            start: index before which rows in front of the input stand. Shape `(batch,)`.
            end: index before which rows behind the input stand. Shape `(batch,)`.
            generator: draws dropout; `None` means evaluation.
        """
        rows = self.rows(generator)  # (length, hidden)
        return PromptOutput(
            rows=rows.expand(start.shape[0], -1, -1),  # (batch, length, hidden)
            anchors=self.position(start, end),
        )

    @torch.no_grad()
    def bake(self) -> Tensor:
        """Return the rows as inference needs them, without the network that trained them.

        Returns:
            A detached copy, float32. Shape `(length, hidden)`.
        """
        rows: Tensor = self.rows(None)
        return rows.detach().clone()
