"""Position learned per instance."""

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
from softprompts.prompts.selection import linear_logits, linear_weight


@final
class InstancePosition(Position):
    """`[P_1..P_s ; X ; P_{s+1}..P_l]`, `s` chosen by one linear map of the instance vector.

    Reference:
        Yang et al. (2023), arXiv 2303.02909, section 3.2 (adap_ins_pos).

    Differences:
        The authors' code always has the ReLU, whose gradient dies once all logits are negative.
        Instance vectors are scaled to a root-mean-square of 1.
    """

    needs_instances = True
    draws = True

    def __init__(
        self, length: int, width: int, generator: Generator, *, has_relu: bool = False
    ) -> None:
        super().__init__(length, width, generator)
        require_rows(length)
        self.weight = nn.Parameter(linear_weight(width, length + 1, generator))
        self.bias = nn.Parameter(torch.zeros(length + 1))
        self.has_relu = has_relu

    def forward(self, edges: Edges, instances: Tensor | None, draws: Draws | None) -> Placement:
        """Choose a split for every input."""
        what = "a position learned per instance"
        logits = linear_logits(instances, self.weight, self.bias, what, has_relu=self.has_relu)
        return choose_split(logits, edges, draws)
