"""Memories for tests: keys and values for every attention of a backbone."""

from __future__ import annotations

from typing import Any

import torch

from softprompts.backbones.memory import KeyValues, Memory


def draw_memory(backbone: Any, batch: int, is_hidden: bool) -> Memory:
    """Draw three keys and values per attention; every other input may have the first alone."""
    draws = torch.Generator().manual_seed(1)
    shown = torch.ones(batch, 3, dtype=torch.long)
    shown[1::2, 1:] = 0 if is_hidden else 1

    def pair(slot: Any) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (batch, slot.heads, 3, slot.size)
        return torch.randn(shape, generator=draws), torch.randn(shape, generator=draws)

    prefixes = {slot: KeyValues(*pair(slot), shown) for slot in backbone.slots}
    return Memory(prefixes, lengths=shown.sum(dim=1))
