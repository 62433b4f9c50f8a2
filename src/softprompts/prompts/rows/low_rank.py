"""Low-rank rows: the prompt is a product of two thin matrices."""

from __future__ import annotations

from typing import final

import torch
from torch import Generator, Tensor, nn

from softprompts.errors import PromptError
from softprompts.prompts.rows.base import Rows


@final
class LowRankRows(Rows):
    """Rows of low rank: `P = U V` with `U (length, rank)` and `V (rank, hidden)`.

    Trainable numbers: `r (l + d)`. In absolute numbers `U V` starts at the matrix of that rank
    that is nearest to the initial rows. In a unit `u`, `P = P_0 + u U V` with the initial rows
    `P_0` kept as they are and `V` at 0, so that training starts at them, whatever their rank.

    Reference:
        Guo, Damani and Chang (2024), arXiv 2406.19486, section 3 (LoPT-1).

    Differences:
        In a unit the initial rows stay beside the product. The paper draws both factors at random;
        in absolute numbers they come from the initial rows' singular values.
    """

    has_unit = True
    draws = False
    base: Tensor

    def __init__(
        self,
        initial: Tensor,
        generator: Generator,
        *,
        rank: int | None = None,
        unit: Tensor | None = None,
    ) -> None:
        super().__init__(initial, generator, unit=unit)
        length, hidden = initial.shape
        rank = min(4, length) if rank is None else rank
        if rank > length:
            raise PromptError(f"`prompt.rows.rank` must be at most {length}, but is {rank}.")
        rows = self.start(initial).detach()
        if self.is_relative:
            self.register_buffer("base", rows)
            left = torch.randn(length, rank, generator=generator) / rank**0.5
            right = torch.zeros(rank, hidden)
        else:
            self.register_buffer("base", torch.zeros(()), persistent=False)
            u, s, v = torch.linalg.svd(rows, full_matrices=False)
            root = s[:rank].sqrt()
            left, right = u[:, :rank] * root, root[:, None] * v[:rank]
        self.left, self.right = nn.Parameter(left), nn.Parameter(right)

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return `P`. Shape `(length, hidden)`."""
        return (self.base + self.left @ self.right) * self.unit
