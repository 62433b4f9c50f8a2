"""Active length learned per instance."""

from __future__ import annotations

from typing import final

from torch import Generator, Tensor, nn

from softprompts.prompts.active_lengths.base import ActiveLength, Activity, first_logits
from softprompts.prompts.draws import Draws
from softprompts.prompts.selection import linear_logits, linear_weight, select


@final
class InstanceActiveLength(ActiveLength):
    """The first `n` rows are active, `n` chosen by one linear map of the instance vector.

    Reference:
        Yang et al. (2023), arXiv 2303.02909, section 3.2 (adap_ins_length).

    Differences:
        As for the length learned per task; and the ReLU is an option, as for the position.
    """

    needs_instances = True
    draws = True

    def __init__(
        self,
        length: int,
        width: int,
        generator: Generator,
        *,
        start: int | None = None,
        lead: float = 1.0,
        has_relu: bool = False,
    ) -> None:
        super().__init__(length, width, generator)
        self.bias = nn.Parameter(first_logits(length, start, lead))
        self.weight = nn.Parameter(linear_weight(width, length + 1, generator))
        self.has_relu = has_relu

    def forward(self, batch: int, instances: Tensor | None, draws: Draws | None) -> Activity:
        """Choose a number for every input."""
        what = "a length learned per instance"
        logits = linear_logits(instances, self.weight, self.bias, what, has_relu=self.has_relu)
        return Activity(select(logits, draws, "length"), logits)
