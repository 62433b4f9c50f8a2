"""A mixture of several sets of rows, weighted per instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Generator, Tensor, nn

from softprompts.prompts.draws import Draws
from softprompts.prompts.pools.base import Pool, several, stack
from softprompts.prompts.rows.base import Rows
from softprompts.prompts.selection import linear_logits, linear_weight


@final
class AttentionPool(Pool):
    """`sum_i beta_i P^(i)` with `beta = softmax(W x + b)` of the instance vector `x`.

    Reference:
        Yang et al. (2023), arXiv 2303.02909, section 3.3 (adap_ins_vec).

    Differences:
        Instance vectors are scaled to a root-mean-square of 1. The authors' code has a tanh
        before the softmax, which `has_tanh` puts there; their text has none.
    """

    needs_instances = True

    def __init__(
        self,
        sets: Sequence[Rows],
        width: int,
        generator: Generator,
        *,
        size: int = 4,
        has_tanh: bool = False,
    ) -> None:
        super().__init__(sets, width, generator)
        self.has_tanh = has_tanh
        self.sets = several(sets, size)
        self.weight = nn.Parameter(linear_weight(width, size, generator))
        self.bias = nn.Parameter(torch.zeros(size))

    @torch.no_grad()
    def bake(self) -> Tensor:
        """Return all sets. Shape `(pool, length, hidden)`."""
        return stack(self.sets, None)

    def forward(
        self, batch: int, instances: Tensor | None, draws: Draws | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return each input's mixture and its weights."""
        logits = linear_logits(instances, self.weight, self.bias, "a pool")  # (batch, pool)
        sets = stack(self.sets, draws)  # (pool, length, hidden)
        weights = (logits.tanh() if self.has_tanh else logits).softmax(dim=1)
        rows = (weights @ sets.flatten(1)).view(batch, *sets.shape[1:])  # (batch, length, hidden)
        return rows, weights
