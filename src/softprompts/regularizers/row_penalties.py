"""How large prompt rows are, and how far from the words of the vocabulary."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.errors import PromptError
from softprompts.regularizers.base import Penalty, Regularizer, Seen, per_example

_ROWS_AT_ONCE = 8192


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


@final
class VocabularyDistance(Regularizer):
    """Penalizes `mean_i min_v |row_i - e_v|^2 / (hidden * rms^2)`.

    The nearest row of the vocabulary is searched for in blocks, so that a vocabulary of any size
    fits memory; its index has no gradient.

    `e` is the embedding table, and `rms` its root-mean-square.
    """

    needs_rows = True
    needs_embeddings = True

    def __init__(self, backbone: Backbone, *, weight: float = 1.0, warmup_steps: int = 0) -> None:
        super().__init__(backbone, weight=weight, warmup_steps=warmup_steps)
        self.backbone, self.rms = backbone, backbone.embedding_rms

    def penalty(self, seen: Seen) -> Penalty:
        """Return the distance of each example's rows."""
        rows = seen.rows()  # (inputs, length, hidden)
        size = self.backbone.embedding_size
        if rows.shape[-1] != size:
            raise PromptError(
                f"rows must be as wide as embeddings, {size}, to have a distance to the "
                f"vocabulary, but are {rows.shape[-1]} wide."
            )
        values = _nearest(self.backbone, rows)
        distances = (rows - values).square().mean(dim=-1).mean(dim=1) / self.rms**2  # (inputs,)
        return Penalty(per_example(seen, distances))


@torch.no_grad()
def _nearest(backbone: Backbone, rows: Tensor) -> Tensor:
    """Return the nearest vocabulary row of each row, float32. Shape as `rows`."""
    flat = rows.detach().flatten(0, 1)
    wanted, back = torch.unique(flat, dim=0, return_inverse=True)
    best = torch.full((len(wanted),), float("inf"), device=flat.device)
    index = torch.zeros(len(wanted), dtype=torch.long, device=flat.device)
    for start in range(0, backbone.vocabulary_size, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, backbone.vocabulary_size)
        ids = torch.arange(start, stop, device=flat.device)
        least, where = torch.cdist(wanted, backbone.embed(ids).float()).min(dim=1)
        is_better = least < best
        best = torch.where(is_better, least, best)
        index = torch.where(is_better, where + start, index)
    return backbone.embed(index[back]).float().reshape(rows.shape)
