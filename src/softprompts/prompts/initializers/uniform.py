"""Uniform random rows."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from softprompts.prompts.initializers.base import Initializer, Surroundings


@final
class UniformInitializer(Initializer):
    """Uniform numbers in `[-range, range]`.

    Args:
        range: half width of the interval.

    Reference:
        Lester, Al-Rfou and Constant (2021), arXiv 2104.08691, section 3.2: `[-0.5, 0.5]`.
    """

    def __init__(self, range: float = 0.5) -> None:
        self.range = range

    def __call__(self, length: int, surroundings: Surroundings) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`."""
        rows = torch.empty(length, surroundings.backbone.embedding_size)
        return rows.uniform_(-self.range, self.range, generator=surroundings.generator)
