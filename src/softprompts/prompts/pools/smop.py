"""A gate that gives each input one of several short prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from softprompts.prompts.draws import Draws
from softprompts.prompts.pools.base import Pool, several, stack
from softprompts.prompts.rows.base import Rows
from softprompts.prompts.selection import linear_logits
from softprompts.seeding import generator


@final
class SmopPool(Pool):
    """`p_i P^(i)` with `p = softmax(W x)` of the instance vector `x`, and `i` the largest `p`.

    In training the logits are `W x (1 + noise)`, with Gaussian noise per input and set, so that no
    set is left without inputs. The router learns through `p_i` alone, the sets through `P^(i)`.

    Unless they are scaled, rows are multiplied by 1, with the same gradient for the router up to
    `1 / p_i`, so that training starts at the initial rows. `W` starts with orthogonal rows.

    Reference:
        Choi, Kim, Park, Mok and Lee (2023), EMNLP 2023, SMoP, section 3.

    Differences:
        Rows are not scaled unless asked for. Instance vectors are scaled to a root-mean-square of
        1. The paper's optional loss that balances the load is not there; its code has it, too.
    """

    needs_instances = True
    is_sparse = True

    def __init__(
        self,
        sets: Sequence[Rows],
        width: int,
        generator: Generator,
        *,
        size: int = 4,
        noise: float = 1.0,
        is_scaled: bool = False,
    ) -> None:
        super().__init__(sets, width, generator)
        self.sets = several(sets, size)
        drawn = torch.randn(max(size, width), min(size, width), generator=generator)
        basis = torch.linalg.qr(drawn).Q  # orthogonal columns
        self.weight = nn.Parameter((basis.T if size <= width else basis).contiguous())
        self.noise, self.is_scaled = noise, is_scaled

    @torch.no_grad()
    def bake(self) -> Tensor:
        """Return all sets. Shape `(pool, length, hidden)`."""
        return stack(self.sets, None)

    def forward(
        self, batch: int, instances: Tensor | None, draws: Draws | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return each input's rows, and its weights: 1 for its set, 0 for others."""
        zero = self.weight.new_zeros(len(self.weight))
        logits = linear_logits(instances, self.weight, zero, "a pool")  # (batch, pool)
        if draws is not None and self.noise:
            drawn = generator(draws.seed, "router", draws.step)
            noise = torch.randn(draws.num_examples, logits.shape[1], generator=drawn)
            logits = logits * (1 + self.noise * noise.to(logits)[draws.places])
        shares = logits.softmax(dim=1)
        largest, place = shares.max(dim=1)
        chosen = functional.one_hot(place, shares.shape[1]).to(shares)
        scale = largest if self.is_scaled else largest / largest.detach()
        weights = chosen * scale[:, None]  # (batch, pool)
        sets = stack(self.sets, draws)  # (pool, length, hidden)
        rows = (weights @ sets.flatten(1)).view(batch, *sets.shape[1:])  # (batch, length, hidden)
        return rows, weights
