"""Positions: where the rows of a prompt stand around the input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Position(nn.Module, ABC):
    """Where rows go.

    Args:
        length: number of rows.
        options: the kind's own options, as its registry entry lists them.
    """

    @abstractmethod
    def __init__(self, length: int, **options: Any) -> None:
        super().__init__()
        self.length = length

    @abstractmethod
    def forward(self, start: Tensor, end: Tensor) -> Tensor:
        """Return the token index before which each row stands.

        Args:
            start: index before which rows in front of the input stand. Shape `(batch,)`.
            end: index before which rows behind the input stand. Shape `(batch,)`.

        Returns:
            Token indices, not falling along the rows. Shape `(batch, length)`.
        """
