"""A mixture of several sets of rows, weighted once for the whole task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Generator, Tensor, nn

from softprompts.prompts.draws import Draws
from softprompts.prompts.pools.base import Pool, several, stack
from softprompts.prompts.rows.base import Rows


@final
class TaskPool(Pool):
    """`sum_i beta_i P^(i)` with `beta = softmax(b)`, `b` trained logits of the task.

    Tasks of a mixture share the sets and have logits of their own; a run of one task learns one
    mixture.

    Logits start at zero, so that tasks differ by training alone.

    Reference:
        Yang et al. (2023), arXiv 2303.02909, section 3.3, with weights per task.
    """

    task_tensors = ("logits",)

    def __init__(
        self, sets: Sequence[Rows], width: int, generator: Generator, *, size: int = 4
    ) -> None:
        super().__init__(sets, width, generator)
        self.sets = several(sets, size)
        self.logits = nn.Parameter(torch.zeros(size))

    @torch.no_grad()
    def bake(self) -> Tensor:
        """Return all sets. Shape `(pool, length, hidden)`."""
        return stack(self.sets, None)

    def forward(
        self, batch: int, instances: Tensor | None, draws: Draws | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the task's mixture and its weights, the same for every input."""
        sets = stack(self.sets, draws)  # (pool, length, hidden)
        weights = self.logits.softmax(dim=0)  # (pool,)
        rows = (weights @ sets.flatten(1)).view(sets.shape[1:])  # (length, hidden)
        return rows.expand(batch, -1, -1), weights.expand(batch, -1)
