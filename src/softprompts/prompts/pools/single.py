"""One set of rows for every input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Generator, Tensor

from softprompts.prompts.draws import Draws
from softprompts.prompts.pools.base import Pool
from softprompts.prompts.rows.base import Rows


@final
class SinglePool(Pool):
    """The first and only set of rows."""

    def __init__(self, sets: Sequence[Rows], width: int, generator: Generator) -> None:
        super().__init__(sets, width, generator)
        (self.rows,) = sets
        self.changes_tokens = self.rows.changes_tokens

    @torch.no_grad()
    def bake(self) -> Tensor:
        """Return the set. Shape `(1, length, hidden)`."""
        rows: Tensor = self.rows(None)
        return rows.detach().clone()[None]

    def embed(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Return what the set makes of tokens. Shape `(batch, tokens, hidden)`."""
        return self.rows.embed(embeddings, ids)

    def forward(
        self, batch: int, instances: Tensor | None, draws: Draws | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the same rows for every input."""
        dropout = draws.generator("dropout") if draws is not None and self.rows.draws else None
        rows: Tensor = self.rows(dropout)
        return rows.expand(batch, -1, -1), None
