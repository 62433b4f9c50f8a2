"""The same numbers, faster: nothing else needs this folder, and one finder looks for it."""

from typing import Any

import torch

from softprompts.fast import fused_attention, plain_attention
from softprompts.fast.fused_activation import fuse_activations
from softprompts.fast.fused_layers import fuse_layers
from softprompts.fast.prepacking import hints_of, laid_out_bytes, prepack
from softprompts.fast.reader import FastReader

plain_attention.register()
fused_attention.register()

READER = FastReader()

__all__ = ["READER", "choose_attention", "fuse", "laid_out_bytes", "prepack", "why_not"]


def choose_attention(dtype: str, device: torch.device, is_compiled: bool) -> str:
    """Return the name of the fastest implementation of attention that there is."""
    if dtype != "bfloat16" or device.type != "cpu":
        return "sdpa"
    return "plain" if is_compiled or fused_attention.why_not() else "fused"


def why_not(attention: str | None) -> str | None:
    """Return why this machine has not the attention that is asked for; `None` where it has."""
    return fused_attention.why_not() if attention == "fused" else None


def fuse(model: Any, attention: str) -> None:
    """Fuse activations and layers of a model that has fused attention."""
    if attention == "fused":
        fuse_activations(model, hints_of(model))
        fuse_layers(model)
