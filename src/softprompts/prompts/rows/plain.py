"""Plain rows: the prompt is what is trained."""

from __future__ import annotations

from typing import final

from torch import Generator, Tensor

from softprompts.prompts.rows.base import Rows


@final
class PlainRows(Rows):
    """Free rows of embeddings: `P`.

    Reference:
        Lester, Al-Rfou and Constant (2021), arXiv 2104.08691, section 2.
    """

    has_unit = True
    draws = False

    def __init__(
        self, initial: Tensor, generator: Generator, *, unit: Tensor | None = None
    ) -> None:
        super().__init__(initial, generator, unit=unit)
        self.weight = self.start(initial).requires_grad_(initial.numel() > 0)

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return the rows. Shape `(length, hidden)`."""
        return self.weight * self.unit
