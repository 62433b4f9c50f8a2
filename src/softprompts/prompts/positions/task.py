"""Position learned once for the whole task."""

from __future__ import annotations

from typing import final

import torch
from torch import Generator, Tensor, nn

from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import (
    Edges,
    Placement,
    Position,
    choose_split,
    require_rows,
)


@final
class TaskPosition(Position):
    """`[P_1..P_s ; X ; P_{s+1}..P_l]`, `s` chosen among `0..l` by `l + 1` trained logits.

    While training, each example draws its own choice; in evaluation all take the likeliest.

    Reference:
        Yang et al. (2023), arXiv 2303.02909, section 3.2 (adap_pos).
    """

    draws = True
    task_tensors = ("logits",)

    def __init__(self, length: int, width: int, generator: Generator) -> None:
        super().__init__(length, width, generator)
        require_rows(length)
        self.logits = nn.Parameter(torch.zeros(length + 1))

    def forward(self, edges: Edges, instances: Tensor | None, draws: Draws | None) -> Placement:
        """Choose a split for every input."""
        return choose_split(self.logits.expand(edges.batch, -1), edges, draws)
