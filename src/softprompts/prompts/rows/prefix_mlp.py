"""Prefix rows: an embedding per row, widened to all layers by one small network."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Generator, Tensor, nn

from softprompts.errors import PromptError
from softprompts.prompts.rows.base import Rows
from softprompts.prompts.rows.drawing import linear, start_as_nothing


@final
class PrefixMlpRows(Rows):
    """`P = W2 tanh(W1 E + b1) + b2`: one network for the keys and values of all layers.

    `E` and the network are trained together; afterwards only `P` is kept for inference. Trainable
    numbers, with `e = embedding`, `m = bottleneck` and `w = width`: `l e + e m + m + m w + w`.

    In a unit `u`, `P = base + u (W2 tanh(W1 E / rms(E) + b1) + b2)`, with `W2` and `b2` starting at
    0 and `base` what rows start as. Without a `width`, a row is as wide as an embedding.

    Reference:
        Li and Liang (2021), arXiv 2101.00190, section 4.3.

    Differences:
        `E` starts at the initializer's embeddings and not at random, and has their width. The
        paper has no base, which is there in a unit only.
    """

    is_joint = True
    has_unit = True
    draws = False
    groups: ClassVar = {"network": "network"}
    base: Tensor | None

    def __init__(
        self,
        initial: Tensor,
        generator: Generator,
        *,
        bottleneck: int | None = None,
        width: int | None = None,
        base: Tensor | None = None,
        unit: Tensor | None = None,
    ) -> None:
        super().__init__(initial, generator, unit=unit)
        length, embedding = initial.shape
        if not length:
            raise PromptError("`prompt.length` must be at least 1 for prefix-mlp rows, but is 0.")
        hidden = embedding if bottleneck is None else bottleneck
        rms = initial.float().square().mean().sqrt().clamp(min=1e-12) if self.is_relative else 1.0
        self.weight = nn.Parameter(initial.detach().clone().float() / rms)
        self.network = nn.Sequential(
            linear(embedding, hidden, generator),
            nn.Tanh(),
            linear(hidden, embedding if width is None else width, generator),
        )
        own = None
        if self.is_relative:
            start_as_nothing(self.network[-1])
            own = (initial if base is None else base).detach().clone().float().cpu()
        self.register_buffer("base", own)

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return `P`; nothing is drawn, so `generator` is not used. Shape `(length, width)`."""
        rows: Tensor = self.network(self.weight)
        return rows if self.base is None else self.base + rows * self.unit
