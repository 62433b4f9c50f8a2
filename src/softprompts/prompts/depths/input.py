"""Rows at the input: embeddings among the embeddings of the tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from torch import Generator, Tensor

from softprompts.backbones.memory import KeyValues, Slot
from softprompts.backbones.units import Units
from softprompts.prompts.depths.base import Build, Depth, build_in_unit
from softprompts.prompts.rows.base import Rows


@final
class InputDepth(Depth):
    """A row is an embedding."""

    def __init__(
        self,
        slots: Sequence[Slot] = (),
        read: Callable[[Tensor], Mapping[Slot, KeyValues]] | None = None,
    ) -> None:
        """Keep neither: what stands in the input needs no attention to be reached."""

    def build_rows(
        self,
        kind: type[Rows],
        build: Build,
        initial: Tensor,
        draw: Callable[[int], Generator],
        units: Units | None = None,
    ) -> Rows:
        """Return rows that start as the embeddings given."""
        unit = None if units is None else torch.tensor(units.embedding)
        return build_in_unit(kind, build, initial, draw(0), unit)

    def prefixes(self, rows: Tensor) -> Mapping[Slot, KeyValues]:
        """Return nothing."""
        return {}
