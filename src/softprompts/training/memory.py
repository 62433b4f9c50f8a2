"""How much is read at once, and what happens when memory does not hold it."""

from __future__ import annotations

import gc
from typing import final

import torch

from softprompts.errors import MemoryShortageError

_CPU_TEXT = "DefaultCPUAllocator: can't allocate memory"


@final
class Room:
    """Bounds the micro-batches of a pack; the bound falls where memory does not hold one.

    Args:
        most_positions: most positions in a micro-batch, padding included; `None` sets no bound.
    """

    def __init__(self, most_positions: int | None = None) -> None:
        self.most_positions = most_positions
        self._positions = self._num_examples = 0

    def enter(self, positions: int, num_examples: int) -> None:
        """Take note of the micro-batch that is read now."""
        self._positions, self._num_examples = positions, num_examples

    def halve(self, reason: str) -> str:
        """Bound later micro-batches to half of the one that memory did not hold.

        Args:
            reason: what the allocator said.

        Returns:
            What to tell the user.

        Raises:
            MemoryShortageError: if that was a single example.
        """
        if self._num_examples <= 1:
            raise MemoryShortageError(
                f"one example of {self._positions} positions must fit in memory, but does not: "
                f"{reason} Shorten `task.max_tokens`, set `backbone.gradient_checkpointing`, or "
                "choose a smaller backbone."
            )
        self.most_positions = max(1, self._positions // 2)
        return (
            f"memory does not hold a micro-batch of {self._num_examples} examples, "
            f"{self._positions} positions; from here on they have at most {self.most_positions}."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a processor or an accelerator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return not isinstance(error, MemoryShortageError)
    return isinstance(error, RuntimeError) and _CPU_TEXT in str(error)


def free_memory(device: torch.device) -> None:
    """Give back what a failed attempt has left; call it outside of the handler of its error."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
