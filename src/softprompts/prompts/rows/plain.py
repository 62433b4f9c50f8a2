"""Plain rows: the prompt is what is trained."""

from __future__ import annotations

from typing import final

from torch import Generator, Tensor, nn

from softprompts.prompts.rows.base import Rows


@final
class PlainRows(Rows):
    """Free rows of embeddings: `P`.

    Args:
        initial: the rows before training. Shape `(length, hidden)`.
        generator: not used, since nothing else is drawn.

    Reference:
        Lester, Al-Rfou and Constant (2021), arXiv 2104.08691, section 2.
    """

    def __init__(self, initial: Tensor, generator: Generator) -> None:
        super().__init__(initial, generator)
        weight = initial.detach().clone().float()
        self.weight = nn.Parameter(weight, requires_grad=weight.numel() > 0)

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return the rows. Shape `(length, hidden)`."""
        return self.weight
