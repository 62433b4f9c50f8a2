"""Uniform random rows."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from softprompts.prompts.initializers.base import Initializer, InitializerContext


@final
class UniformInitializer(Initializer):
    """Uniform numbers in `[-range, range]`.

    Reference:
        Lester, Al-Rfou and Constant (2021), arXiv 2104.08691, section 3.2: `[-0.5, 0.5]`.
    """

    def __init__(self, range: float = 0.5) -> None:
        self.range = range

    def __call__(self, length: int, context: InitializerContext) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`."""
        rows = torch.empty(length, context.backbone.embedding_size)
        return rows.uniform_(-self.range, self.range, generator=context.generator)
