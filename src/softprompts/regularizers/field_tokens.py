"""The tokens that a perturbation may touch: those of the row's own fields, and no others.

An example may be read as several inputs, such as one per choice. Its field tokens are numbered in
order in each of them, so that what is done to number `i` is done to it in all: an example is
perturbed once, however many inputs show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from softprompts.encoding.batch import Batch
from softprompts.encoding.template import Role


@final
@dataclass(frozen=True, eq=False)
class FieldTokens:
    """Where the field tokens of a batch are.

    Attributes:
        mask: which tokens are of a field. Shape `(inputs, tokens)`.
        examples: the example of each input. Shape `(inputs,)`.
        num_examples: examples in the batch.
    """

    mask: Tensor
    examples: Tensor
    num_examples: int

    @classmethod
    def of(cls, batch: Batch) -> FieldTokens:
        """Return the field tokens of a batch."""
        return cls(batch.roles == Role.FIELD, batch.examples, batch.size)

    @cached_property
    def numbers(self) -> Tensor:
        """The number of each field token in its example, 0 elsewhere. Shape `(inputs, tokens)`."""
        return (self.mask.long().cumsum(dim=1) - 1).clamp(min=0)

    @cached_property
    def counts(self) -> Tensor:
        """How many field tokens each example has. Shape `(batch,)`."""
        counts = self.mask.sum(dim=1)
        zeros = counts.new_zeros(self.num_examples)
        return zeros.scatter_reduce(0, self.examples, counts, "amax")

    @cached_property
    def width(self) -> int:
        """The most field tokens of an example, at least 1."""
        return max(1, int(self.counts.max()))

    @cached_property
    def own(self) -> Tensor:
        """Which numbers an example has. Shape `(batch, width)`."""
        return torch.arange(self.width, device=self.mask.device) < self.counts[:, None]

    def spread(self, changes: Tensor) -> Tensor:
        """Return what each token of the batch gets, 0 outside of fields.

        Shapes `(batch, width, embedding)` and `(inputs, tokens, embedding)`.
        """
        taken = changes[self.examples[:, None], self.numbers]  # (inputs, tokens, embedding)
        return taken * self.mask[..., None].to(taken)

    def collect(self, values: Tensor) -> Tensor:
        """Return what the tokens of the batch have, summed over the inputs of each example.

        It is the transpose of `spread`, and much cheaper than the gradient that autograd makes.

        Float32, of field tokens alone. Shapes as those of `spread`, the other way around.
        """
        kept = values.float() * self.mask[..., None]
        zeros = kept.new_zeros(self.num_examples * self.width, values.shape[-1])
        places = self.examples[:, None] * self.width + self.numbers  # (inputs, tokens)
        summed = zeros.index_add(0, places.flatten(), kept.flatten(0, 1))
        return summed.reshape(self.num_examples, self.width, -1)

    def mean_square(self, changes: Tensor) -> Tensor:
        """Return the mean square of changes over the field tokens of each example.

        Float32; 0 for an example without any. Shapes `(inputs, tokens, embedding)` and `(batch,)`.
        """
        squares = changes.float().square().mean(dim=-1) * self.mask  # (inputs, tokens)
        zeros = squares.new_zeros(self.num_examples)
        total = zeros.index_add(0, self.examples, squares.sum(dim=1))
        count = zeros.index_add(0, self.examples, self.mask.sum(dim=1).to(zeros))
        return total / count.clamp(min=1)
