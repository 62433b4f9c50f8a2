"""Fixed active length: the same rows for every input."""

from __future__ import annotations

from typing import final

import torch
from torch import Generator, Tensor
from torch.nn import functional

from softprompts.prompts.active_lengths.base import ALL, ActiveLength, Activity, check_count
from softprompts.prompts.draws import Draws


@final
class FixedActiveLength(ActiveLength):
    """The first `count` rows are active, the others are there but hidden from attention."""

    def __init__(
        self,
        length: int,
        width: int = 0,
        generator: Generator | None = None,
        *,
        count: int | None = None,
    ) -> None:
        super().__init__(length, width, generator or Generator())
        check_count("count", count, length)
        self.count = length if count is None else count
        self.is_whole = self.count == length
        weights = functional.one_hot(torch.tensor(self.count), length + 1).float()
        self.register_buffer("_weights", weights, persistent=False)

    def forward(self, batch: int, instances: Tensor | None, draws: Draws | None) -> Activity:
        """Return the same number for every input."""
        if self.is_whole:
            return ALL
        return Activity(self.get_buffer("_weights").expand(batch, -1))
