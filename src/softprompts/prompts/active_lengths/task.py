"""Active length learned once for the whole task."""

from __future__ import annotations

from typing import final

from torch import Generator, Tensor, nn

from softprompts.prompts.active_lengths.base import ActiveLength, Activity, first_logits
from softprompts.prompts.draws import Draws
from softprompts.prompts.selection import select


@final
class TaskActiveLength(ActiveLength):
    """The first `n` rows are active, `n` chosen among `0..l` by `l + 1` trained logits.

    While training, each example draws its own choice; in evaluation all take the likeliest.

    Reference:
        Yang et al. (2023), arXiv 2303.02909, section 3.2 (adap_length).

    Differences:
        The authors' code fills inactive rows with -1e20 and leaves them in the mask. Here gates
        weigh them out of attention and carry the gradient, so a prompt can grow as well as shrink.
    """

    draws = True
    task_tensors = ("logits",)

    def __init__(
        self,
        length: int,
        width: int,
        generator: Generator,
        *,
        start: int | None = None,
        lead: float = 1.0,
    ) -> None:
        super().__init__(length, width, generator)
        self.logits = nn.Parameter(first_logits(length, start, lead))

    def forward(self, batch: int, instances: Tensor | None, draws: Draws | None) -> Activity:
        """Choose a number for every input."""
        logits = self.logits.expand(batch, -1)
        return Activity(select(logits, draws, "length"), logits)
