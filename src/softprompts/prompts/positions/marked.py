"""Marked position: rows stand where a template marks places for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Generator, Tensor

from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import Edges, Placement, Position
from softprompts.prompts.sharing import check_counts, share_rows


@final
class MarkedPosition(Position):
    """`[P_1..P_a ; X_1 ; P_{a+1}..P_b ; X_2 ; ...]`: rows at the marks of a template, in order.

    Reference:
        Liu et al. (2021), arXiv 2103.10385, section 2.
    """

    needs_marks = True
    has_front = False

    def __init__(
        self,
        length: int,
        width: int = 0,
        generator: Generator | None = None,
        counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__(length, width, generator or Generator())
        if counts is not None:
            check_counts(length, counts)
        self.counts = None if counts is None else tuple(counts)

    def forward(self, edges: Edges, instances: Tensor | None, draws: Draws | None) -> Placement:
        """Return the mark of each row."""
        shares = share_rows(self.length, edges.marks.shape[1], self.counts, "an input")
        owners = [mark for mark, count in enumerate(shares) for _ in range(count)]  # (length,)
        return Placement(edges.marks[:, owners])
