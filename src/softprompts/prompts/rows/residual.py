"""Residual rows: rows trained through a shallow network with a skip."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from softprompts.errors import PromptError
from softprompts.prompts.rows.base import Rows


@final
class Bottleneck(nn.Module):
    """`LayerNorm(dropout(W2 act(W1 x + b1) + b2))`, for all rows or one per row.

    Weights are drawn as `torch.nn.Linear` draws them: uniform in `±1 / sqrt(fan_in)`.

    `copies` is 1, or the number of rows. Without a LayerNorm the last weights start at 0 where
    `gain` is 0, and else as drawn.
    """

    def __init__(
        self,
        hidden: int,
        bottleneck: int,
        copies: int,
        *,
        activation: str,
        has_layer_norm: bool,
        dropout: float,
        gain: float = 1.0,
        generator: Generator,
    ) -> None:
        super().__init__()

        def drawn(*shape: int, fan_in: int) -> nn.Parameter:
            bound = 1 / math.sqrt(fan_in)
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.down = drawn(copies, hidden, bottleneck, fan_in=hidden)
        self.down_bias = drawn(copies, 1, bottleneck, fan_in=hidden)
        self.up = drawn(copies, bottleneck, hidden, fan_in=bottleneck)
        self.up_bias = drawn(copies, 1, hidden, fan_in=bottleneck)
        self.has_layer_norm = has_layer_norm
        if has_layer_norm:
            self.gain = nn.Parameter(torch.full((copies, 1, hidden), gain))
            self.offset = nn.Parameter(torch.zeros(copies, 1, hidden))
        elif not gain:
            nn.init.zeros_(self.up)
            nn.init.zeros_(self.up_bias)
        self.activation = {"relu": torch.relu, "tanh": torch.tanh}[activation]
        self.dropout = dropout

    def forward(self, rows: Tensor, generator: Generator | None) -> Tensor:
        """Return the branch's output. Shapes in and out `(length, hidden)`."""
        length, hidden = rows.shape
        copies = self.down.shape[0]
        x = rows.view(copies, length // copies, hidden)  # (copies, length / copies, hidden)
        x = self.activation(x @ self.down + self.down_bias)  # (copies, …, bottleneck)
        x = x @ self.up + self.up_bias  # (copies, …, hidden)
        if self.dropout and generator is not None:
            kept = torch.rand(x.shape, generator=generator).to(x) >= self.dropout
            x = x * kept / (1 - self.dropout)
        if self.has_layer_norm:
            x = functional.layer_norm(x, (hidden,)) * self.gain + self.offset
        return x.view(length, hidden)


@final
class ResidualRows(Rows):
    """Rows plus a shallow network: `P'_i = P_i + phi(P_i)`.

    `phi = LayerNorm(W2 relu(W1 x + b1) + b2)`, the LayerNorm inside the branch and nothing after
    the sum. `P` and `phi` are trained together; afterwards only `P'` is kept for inference.
    Trainable numbers with one shared network of depth 1: `d l + 2 d m + 2 d + m + d`. In a unit
    `u`, `P' = u (w + phi(w))` with `w = P / u` trained.

    `gain` is how large what the branch adds starts: 0 in a unit, so that training starts at the
    initial rows, and 1 in absolute numbers, or without a skip.

    Reference:
        Razdaibiedina et al. (2023), arXiv 2305.03937, section 3 and the ablations of section 5.

    Differences:
        The released code ties the weights of its two-layer variant; here each layer has its own.
        In the paper the LayerNorm's gain starts at 1, whatever rows measure, and the network has
        the rows' learning rate: here so in absolute numbers only.
    """

    has_unit = True
    groups: ClassVar = {"branch": "network"}

    def __init__(
        self,
        initial: Tensor,
        generator: Generator,
        *,
        bottleneck: int = 400,
        depth: int = 1,
        activation: str = "relu",
        is_shared: bool = True,
        has_skip: bool = True,
        has_layer_norm: bool = True,
        dropout: float = 0.0,
        gain: float | None = None,
        unit: Tensor | None = None,
    ) -> None:
        super().__init__(initial, generator, unit=unit)
        length, hidden = initial.shape
        if not length:
            raise PromptError("`prompt.length` must be at least 1 for residual rows, but is 0.")
        if gain is None:
            gain = 0.0 if self.is_relative and has_skip else 1.0
        self.weight = self.start(initial)
        self.has_skip, self.draws = has_skip, dropout > 0
        self.branch = nn.ModuleList(
            Bottleneck(
                hidden,
                bottleneck,
                1 if is_shared else length,
                activation=activation,
                has_layer_norm=has_layer_norm,
                dropout=dropout,
                gain=gain if number == depth - 1 else 1.0,
                generator=generator,
            )
            for number in range(depth)
        )

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return `P'`. Shape `(length, hidden)`."""
        x = self.weight
        for network in self.branch:
            x = network(x, generator)
        return (self.weight + x if self.has_skip else x) * self.unit
