"""Pools: one set of rows, or a mixture chosen per instance."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from softprompts.errors import PromptError
from softprompts.prompts.draws import Draws
from softprompts.prompts.part import Part
from softprompts.prompts.rows.base import Rows


class Pool(Part):
    """Sets of rows and what becomes of them.

    Args:
        sets: one or more sets of rows, each of any kind.
        width: width of instance vectors.
        generator: draws the pool's own first weights.

    Attributes:
        changes_tokens: whether `embed` changes how input tokens are embedded.
        is_sparse: whether inputs choose among the sets, so that one may be left without any.
    """

    changes_tokens: bool = False
    is_sparse: ClassVar[bool] = False

    @abstractmethod
    def __init__(
        self, sets: Sequence[Rows], width: int, generator: Generator, **options: Any
    ) -> None:
        super().__init__()

    @abstractmethod
    def bake(self) -> Tensor:
        """Return all sets as inference needs them, detached. Shape `(pool, length, hidden)`."""

    def embed(self, embeddings: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Return what the backbone reads for input tokens; see `Rows.embed`."""
        return embeddings

    @abstractmethod
    def forward(
        self, batch: int, instances: Tensor | None, draws: Draws | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return each input's rows and, where there is a mixture, its weights.

        `draws` give dropout; `None` means evaluation. Shapes of rows `(batch, length, hidden)`, of
        weights `(batch, pool)` and of `instances`, where the kind needs them, `(batch, width)`.
        """


def several(sets: Sequence[Rows], size: int) -> nn.ModuleList:
    """Return sets of rows as a pool keeps them."""
    if any(rows.changes_tokens for rows in sets):
        raise PromptError(
            f"`prompt.pool` must be 'single' with rows that change how tokens are embedded, but "
            f"has {len(sets)} sets."
        )
    if len(sets) != size:
        raise PromptError(f"`prompt.pool.size` must be {len(sets)}, but is {size}.")
    return nn.ModuleList(sets)


def stack(sets: Iterable[nn.Module], draws: Draws | None) -> Tensor:
    """Return the rows of all sets. Shape `(pool, length, hidden)`."""
    dropout = draws.generator("dropout") if draws else None
    return torch.stack([rows(dropout) for rows in sets])
