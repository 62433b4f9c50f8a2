"""Fixed position: the same split of the rows for every input."""

from __future__ import annotations

from typing import final

import torch
from torch import Generator, Tensor

from softprompts.errors import PromptError
from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import Edges, Placement, Position


@final
class FixedPosition(Position):
    """`[P_1..P_s ; X ; P_{s+1}..P_l]` with a fixed `s`.

    Rows in front of an encoder's input always stand behind the tokens that it begins with.
    """

    def __init__(
        self,
        length: int,
        width: int = 0,
        generator: Generator | None = None,
        split: int | None = None,
        after_bos: bool = False,
    ) -> None:
        super().__init__(length, width, generator or Generator())
        if split is not None and not 0 <= split <= length:
            raise PromptError(f"`prompt.position.split` must be 0 to {length}, but is {split}.")
        self.split = length if split is None else split
        self.has_front = self.split > 0
        self.after_bos = after_bos
        is_front = torch.arange(length) < self.split
        self.register_buffer("_is_front", is_front, persistent=False)

    def forward(self, edges: Edges, instances: Tensor | None, draws: Draws | None) -> Placement:
        """Return the same split for every input."""
        return Placement(
            torch.where(self.get_buffer("_is_front"), edges.start[:, None], edges.end[:, None])
        )
