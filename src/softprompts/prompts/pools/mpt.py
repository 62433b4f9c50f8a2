"""A shared prompt that each task bends by a low-rank factor of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Generator, Tensor, nn

from softprompts.prompts.draws import Draws
from softprompts.prompts.pools.base import Pool, several, stack
from softprompts.prompts.rows.base import Rows


@final
class MptPool(Pool):
    """`P_t = P * (U_t V_t)`: rows shared by all tasks, times a factor of the task's own.

    `*` is the product by elements, `U_t (length, rank)` and `V_t (rank, hidden)`. The factor starts
    at 1 everywhere, so that training starts at the initial rows.

    Reference:
        Wang et al. (2023), MPT, arXiv 2303.02861, section 3.1.

    Differences:
        The paper distils the shared prompt from prompts of single tasks first; here tasks train it
        together from the start. Its factors have rank 1 and start near 0 in peft's code.
    """

    task_tensors = ("left", "right")

    def __init__(
        self,
        sets: Sequence[Rows],
        width: int,
        generator: Generator,
        *,
        size: int = 1,
        rank: int = 1,
    ) -> None:
        super().__init__(sets, width, generator)
        self.sets = several(sets, size)
        length, hidden = self.sets[0]().shape
        first = torch.ones(length, 1)
        others = torch.randn(length, rank - 1, generator=generator)
        self.left = nn.Parameter(torch.cat([first, others], dim=1))
        self.right = nn.Parameter(torch.eye(rank, 1).expand(rank, hidden).clone())

    @torch.no_grad()
    def bake(self) -> Tensor:
        """Return the task's rows. Shape `(1, length, hidden)`."""
        return stack(self.sets, None) * (self.left @ self.right)

    def forward(
        self, batch: int, instances: Tensor | None, draws: Draws | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the task's rows for every input; there are no weights."""
        rows = stack(self.sets, draws)[0] * (self.left @ self.right)  # (length, hidden)
        return rows.expand(batch, -1, -1), None
