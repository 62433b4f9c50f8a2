"""What makes a model faster when it is loaded: its attention, and the layout of its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch

from softprompts.backbones.preparing import Preparer
from softprompts.fast import fused_attention
from softprompts.fast.fused_activation import fuse_activations
from softprompts.fast.fused_layers import fuse_layers
from softprompts.fast.prepacking import hints_of, packed_bytes, prepack


@final
class FastPreparer(Preparer):
    """Fuses what can be fused, and lays frozen weights out as oneDNN multiplies them fastest."""

    def choose_attention(self, dtype: str, device: torch.device, is_compiled: bool) -> str:
        """Return the fastest implementation of attention that there is."""
        if dtype != "bfloat16" or device.type != "cpu":
            return "sdpa"
        if is_compiled or fused_attention.has_faster_products() or fused_attention.why_not():
            return "plain"
        return "fused"

    def why_not(self, attention: str) -> str | None:
        """Return why fused attention cannot be compiled here, if that is asked for."""
        return fused_attention.why_not() if attention == "fused" else None

    def can_compile(self) -> bool:
        """Return that layers can be compiled."""
        return True

    def prepare(self, model: Any, attention: str) -> None:
        """Fuse activations and layers beside fused attention."""
        if attention == "fused":
            fuse_activations(model, hints_of(model))
            fuse_layers(model)

    def lay_out(self, model: Any, run: Callable[[], Any]) -> None:
        """Lay weights out when they are first multiplied with."""
        prepack(model, run)

    def extra_bytes(self, model: Any) -> int:
        """Return the bytes of weights that were laid out."""
        return packed_bytes(model)
