"""Rows: how the trainable rows of a prompt are parameterized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Generator, Tensor, nn


class Rows(nn.Module, ABC):
    """The trainable rows of a prompt, float32.

    Args:
        initial: the rows before training. Shape `(length, hidden)`.
        generator: draws every other parameter's first value.
        options: the kind's own options, as its registry entry lists them.

    Attributes:
        is_joint: in every layer, whether one object parameterizes all layers of a sort of
            attention; it then starts from the initializer's embeddings and is told its `width`.
            Otherwise each attention has an object of its own, which starts from keys and values.
    """

    is_joint: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, initial: Tensor, generator: Generator, **options: Any) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return the rows.

        Args:
            generator: draws dropout; `None` means evaluation, without dropout.

        Returns:
            Rows as the backbone reads them. Shape `(length, hidden)`.
        """
