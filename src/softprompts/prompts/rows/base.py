"""Rows: how the trainable rows of a prompt are parameterized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Generator, Tensor, nn


class Rows(nn.Module, ABC):
    """The trainable rows of a prompt, float32.

    In a unit, parameters are rows divided by it, so that a learning rate is a share of the
    embeddings' size, whatever that is; and what a network adds starts as nothing, so that training
    starts at the initial rows. Without one, numbers are absolute, as in the papers.

    Args:
        initial: the rows before training. Shape `(length, hidden)`.
        generator: draws every other parameter's first value.
        unit: what the backbone's embeddings, or keys and values, measure: their root-mean-square,
            next power of two, so that dividing by it loses nothing. Shape `()`, or one that
            broadcasts to the rows'; `None` leaves numbers absolute.

    Attributes:
        has_unit: whether it takes a `unit`; else `RowsInUnit` scales what goes in and comes out.
        groups: which parameters have a learning rate of their own: the group's name by the name
            of the parameter, or of a module that holds it. Others are `rows`. The registry entry
            says each group's multiplier.
        draws: whether its forward draws dropout, and so needs a generator to draw from.
        changes_tokens: whether `embed` changes how input tokens are embedded.
        needs_words: whether it takes `words`: as many embeddings of words of the vocabulary as its
            option `num_words` says. Such rows stand in the input.
        is_joint: in every layer, whether one object parameterizes all layers of a sort of
            attention; it then starts from the initializer's embeddings and is told its `width`.
            Otherwise each attention has an object of its own, which starts from keys and values.
    """

    is_joint: ClassVar[bool] = False
    has_unit: ClassVar[bool] = False
    groups: ClassVar[Mapping[str, str]] = {}
    draws: bool = True
    changes_tokens: bool = False
    needs_words: ClassVar[bool] = False
    unit: Tensor

    @abstractmethod
    def __init__(
        self, initial: Tensor, generator: Generator, *, unit: Tensor | None = None, **options: Any
    ) -> None:
        super().__init__()
        self.is_relative = unit is not None
        own = torch.ones(()) if unit is None else unit.float()
        self.register_buffer("unit", own, persistent=False)

    def start(self, initial: Tensor) -> nn.Parameter:
        """Return initial rows as a parameter, in the unit."""
        return nn.Parameter(initial.detach().clone().float().cpu() / self.unit)

    @abstractmethod
    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return the rows.

        Dropout is drawn from the generator; `None` means evaluation. Shape `(length, hidden)`.
        """

    def embed(self, embeddings: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Return what the backbone reads for input tokens; a kind may replace this.

        Those are the `embeddings` of the frozen table, unless the kind says `changes_tokens`. Shape
        `(batch, tokens, hidden)`. `places` count the tokens of each input from 0; -1 is none of
        it: padding, or what is to be said, which is read as it is when a decoder writes it. Shape
        `(batch, tokens)`.
        """
        return embeddings


@final
class RowsInUnit(Rows):
    """Rows of a kind that knows of no unit, scaled: `u rows(P / u)`; tokens likewise."""

    def __init__(self, rows: Rows, unit: Tensor) -> None:
        nn.Module.__init__(self)
        self.rows = rows
        self.draws, self.changes_tokens = rows.draws, rows.changes_tokens
        self.register_buffer("unit", unit.float(), persistent=False)

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return the rows. Shape `(length, hidden)`."""
        rows: Tensor = self.rows(generator)
        return rows * self.unit

    def embed(self, embeddings: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Return what the kind makes of tokens in the unit. Shape `(batch, tokens, hidden)`."""
        return self.rows.embed(embeddings / self.unit, ids, places) * self.unit
