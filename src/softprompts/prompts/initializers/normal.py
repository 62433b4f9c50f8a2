"""Normal random rows that look like the embedding table."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from softprompts.prompts.initializers.base import Initializer, InitializerContext


@final
class NormalInitializer(Initializer):
    """Normal numbers with the embedding table's mean and standard deviation, per dimension."""

    def __init__(self) -> None: ...

    def __call__(self, length: int, context: InitializerContext) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`."""
        backbone = context.backbone
        table = backbone.embed(torch.arange(backbone.vocabulary_size)).float().cpu()
        noise = torch.randn(length, table.shape[1], generator=context.generator)
        return table.mean(dim=0) + table.std(dim=0) * noise
