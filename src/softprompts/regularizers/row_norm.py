"""How large prompt rows are."""

from __future__ import annotations

from typing import final

from softprompts.backbones.backbone import Backbone
from softprompts.regularizers.base import Penalty, Regularizer, Seen, per_example


@final
class RowNorm(Regularizer):
    """Penalizes `mean_i |row_i|^2 / (width * rms^2)`.

    `rms` is the root-mean-square of the embedding table.
    """

    needs_rows = True

    def __init__(self, backbone: Backbone, *, weight: float = 1.0, warmup_steps: int = 0) -> None:
        super().__init__(backbone, weight=weight, warmup_steps=warmup_steps)
        self.rms = backbone.embedding_rms

    def penalty(self, seen: Seen) -> Penalty:
        """Return the mean square of each example's rows."""
        squares = seen.rows().square().mean(dim=(1, 2)) / self.rms**2  # (inputs,)
        return Penalty(per_example(seen, squares))
