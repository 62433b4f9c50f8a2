"""A short prompt, and a low-rank change of how the input's tokens are embedded."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Generator, Tensor, nn

from softprompts.prompts.rows.base import Rows


@final
class DecomposedRows(Rows):
    """Free rows `P`, and tokens that are read as `E + A B`.

    `A (tokens, rank)` has a row for each place of the input, counted from its first token, and
    `B (rank, hidden)`. Tokens beyond the last place, and those to be said, are read as they are.
    `B` starts at 0, so that training starts at the plain input. In a unit `u`, `P = u w` and tokens
    are `E + u A B`. Trainable numbers: `l d + r (s + d)` for `s` places.

    Reference:
        Shi and Lipani (2023), DePT, arXiv 2309.05173, section 3.

    Differences:
        The paper trains the two parts at rates of their own, 0.3 and at most 5e-4; here the
        factors' rate is a multiple of that of rows.
    """

    has_unit = True
    draws = False
    changes_tokens = True
    groups: ClassVar = {"left": "tokens", "right": "tokens"}

    def __init__(
        self,
        initial: Tensor,
        generator: Generator,
        *,
        rank: int = 8,
        num_places: int = 256,
        unit: Tensor | None = None,
    ) -> None:
        super().__init__(initial, generator, unit=unit)
        self.weight = self.start(initial).requires_grad_(initial.numel() > 0)
        drawn = torch.randn(num_places, rank, generator=generator)
        self.left = nn.Parameter(drawn / rank**0.5)
        self.right = nn.Parameter(torch.zeros(rank, initial.shape[1]))

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return `P`. Shape `(length, hidden)`."""
        return self.weight * self.unit

    def embed(self, embeddings: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Return `E + A B`. Shape `(batch, tokens, hidden)`."""
        change = self.left[: embeddings.shape[1]] @ self.right * self.unit  # (places, hidden)
        change = nn.functional.pad(change, (0, 0, 0, 1)).to(embeddings)  # the last is none
        is_there = (places >= 0) & (places < len(change) - 1)
        return embeddings + nn.functional.embedding(places.where(is_there, len(change) - 1), change)
