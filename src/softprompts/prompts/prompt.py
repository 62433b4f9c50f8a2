"""The prompt: rows, and where they go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from softprompts.prompts.draws import Draws
from softprompts.prompts.pools.base import Pool
from softprompts.prompts.pools.single import SinglePool
from softprompts.prompts.positions.base import Placement, Position, anchors
from softprompts.prompts.rows.base import Rows


@dataclass(frozen=True)
class PromptOutput:
    """What a prompt emits for a batch.

    Attributes:
        rows: prompt rows, float32. Shape `(batch, length, hidden)`.
        anchors: token index before which each row stands. Shape `(batch, length)`.
        placement: the choice of the position.
        mixture: weights of the pool, or `None`. Shape `(batch, pool)`.
    """

    rows: Tensor
    anchors: Tensor
    placement: Placement
    mixture: Tensor | None


@final
class Prompt(nn.Module):
    """The trainable prompt; it knows nothing of tasks, losses or model families.

    Args:
        rows: how the rows are parameterized, or a pool of several sets.
        position: where they go.
    """

    def __init__(self, rows: Rows | Pool, position: Position) -> None:
        super().__init__()
        if isinstance(rows, Rows):
            rows = SinglePool([rows], 0, torch.Generator())
        self.pool: Pool = rows
        self.position: Position = position

    @property
    def length(self) -> int:
        """Number of rows."""
        return self.position.length

    @property
    def needs_instances(self) -> bool:
        """Whether rows or places depend on instance vectors."""
        return self.pool.needs_instances or self.position.needs_instances

    def forward(
        self,
        start: Tensor,
        end: Tensor,
        instances: Tensor | None = None,
        draws: Draws | None = None,
    ) -> PromptOutput:
        """Return rows and places for a batch.

        Args:
            start: index before which rows in front of the input stand. Shape `(batch,)`.
            end: index before which rows behind the input stand. Shape `(batch,)`.
            instances: instance vectors, where they are needed. Shape `(batch, width)`.
            draws: noise, temperature and dropout; `None` means evaluation.
        """
        batch = start.shape[0]
        rows, mixture = self.pool(batch, instances, draws)
        placement: Placement = self.position(batch, instances, draws)
        places = anchors(placement.split, self.length, start, end)
        return PromptOutput(rows, places, placement, mixture)

    def bake(self) -> Tensor:
        """Return the rows as inference needs them, without the network that trained them.

        Returns:
            A detached copy, float32. Shape `(length, hidden)`, or `(pool, length, hidden)` where
            there are several sets.
        """
        sets = self.pool.bake()
        return sets[0] if len(sets) == 1 else sets
