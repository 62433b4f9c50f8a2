"""Rows at the input: embeddings among the embeddings of the tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

from torch import Generator, Tensor

from softprompts.backbones.memory import KeyValues, Slot
from softprompts.prompts.depths.base import Build, Depth
from softprompts.prompts.rows.base import Rows


@final
class InputDepth(Depth):
    """A row is an embedding.

    Args:
        slots: not used.
        read: not used.
    """

    def __init__(
        self,
        slots: Sequence[Slot] = (),
        read: Callable[[Tensor], Mapping[Slot, KeyValues]] | None = None,
    ) -> None:
        """Keep neither: what stands in the input needs no attention to be reached."""

    def build_rows(
        self, kind: type[Rows], build: Build, initial: Tensor, draw: Callable[[int], Generator]
    ) -> Rows:
        """Return rows that start as the embeddings given."""
        return build(initial, draw(0))

    def prefixes(self, rows: Tensor) -> Mapping[Slot, KeyValues]:
        """Return nothing."""
        return {}
