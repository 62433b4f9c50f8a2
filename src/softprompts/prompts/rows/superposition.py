"""Rows that are sums of the vocabulary's embeddings."""

from __future__ import annotations

from typing import final

import torch
from torch import Generator, Tensor, nn

from softprompts.prompts.rows.base import Rows


@final
class SuperpositionRows(Rows):
    """Rows as weighted sums of words: `P = W E`, the weights `W` trained, the words `E` not.

    `E (words, hidden)` are embeddings of words that are drawn once for all rows. In a unit `u`,
    `P = P_0 + W E` with the initial rows `P_0` kept as they are and `W (length, words)` at 0, so
    that training starts at them; a weight is a share of a word. Trainable numbers: `l m` for `m`
    words.

    Reference:
        Ali Sadraei Javaheri et al. (2024), arXiv 2406.05279, SuperPos-Prompt.

    Differences:
        In a unit the initial rows stay beside the sum. In absolute numbers each weight starts at
        one over the number of words, so that all rows start at the words' mean and a small draw
        tells them apart.
    """

    has_unit = True
    draws = False
    needs_words = True
    base: Tensor
    words: Tensor

    def __init__(
        self, initial: Tensor, generator: Generator, *, words: Tensor, unit: Tensor | None = None
    ) -> None:
        super().__init__(initial, generator, unit=unit)
        length, num_words = len(initial), len(words)
        self.register_buffer("words", words.detach().clone().float().cpu())
        if self.is_relative:
            self.register_buffer("base", initial.detach().clone().float().cpu())
            weight = torch.zeros(length, num_words)
        else:
            self.register_buffer("base", torch.zeros(()), persistent=False)
            drawn = torch.randn(length, num_words, generator=generator)
            weight = (1 + 0.1 * drawn) / num_words
        self.weight = nn.Parameter(weight)

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return `P`. Shape `(length, hidden)`."""
        return self.base + self.weight @ self.words
