"""Fixed position: the same split of the rows for every input."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from softprompts.errors import PromptError
from softprompts.prompts.positions.base import Position


@final
class FixedPosition(Position):
    """`[P_1..P_s ; X ; P_{s+1}..P_l]` with a fixed `s`.

    Args:
        length: number of rows `l`.
        split: rows in front of the input `s`; `None` puts all of them there.

    Raises:
        PromptError: if `split` is larger than `length`.
    """

    def __init__(self, length: int, split: int | None = None) -> None:
        super().__init__(length)
        if split is not None and not 0 <= split <= length:
            raise PromptError(f"`prompt.position.split` must be 0 to {length}, but is {split}.")
        self.split = length if split is None else split

    def forward(self, start: Tensor, end: Tensor) -> Tensor:
        """Return the anchors. Shape `(batch, length)`."""
        is_front = torch.arange(self.length, device=start.device) < self.split  # (length,)
        return torch.where(is_front, start[:, None], end[:, None])
