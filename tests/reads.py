"""Reading a batch as the fast reader does, and what that knows of a backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.memory import Memory
from softprompts.fast import READER
from softprompts.fast.kept import Kept
from softprompts.fast.reader import Ways
from softprompts.fast.route import Route, Shortcuts
from softprompts.prompts.splice import Spliced
from softprompts.training.reader import Joint


def ways(backbone: Backbone) -> Ways:
    """Return the ways to read through a backbone."""
    return READER.ways(backbone)


def shortcuts(backbone: Backbone) -> Shortcuts:
    """Return which shortcuts give the same."""
    return ways(backbone).shortcuts


def forget_kept() -> None:
    """Let nothing be kept of any backbone's inputs."""
    for one in READER._ways.values():
        one.kept = Kept(one.backbone.device)


def hidden(
    backbone: Backbone,
    embeddings: Tensor,
    mask: Tensor,
    segments: Tensor | None,
    gather: Tensor | None = None,
    memory: Memory | None = None,
    wanted: Tensor | None = None,
) -> Tensor:
    """Return states, read by the fast reader."""
    given = _spliced(embeddings, mask, segments, wanted)
    return ways(backbone).read_joint(Joint(given, memory, gather, needs_head=False))


def logits(
    backbone: Backbone,
    embeddings: Tensor,
    mask: Tensor,
    segments: Tensor | None,
    gather: Tensor,
    decoder: DecoderInputs | None = None,
    memory: Memory | None = None,
    wanted: Tensor | None = None,
) -> Tensor:
    """Return logits, read by the fast reader."""
    given = _spliced(embeddings, mask, segments, wanted)
    return ways(backbone).read_joint(Joint(given, memory, gather, True, decoder))


def states_at(
    backbone: Backbone, embeddings: Tensor, mask: Tensor, gather: Tensor, route: Route
) -> Tensor:
    """Return states at positions, read in a given way."""
    return ways(backbone)._states_at(embeddings, mask, gather, route)


def _spliced(
    embeddings: Tensor, mask: Tensor, segments: Tensor | None, wanted: Tensor | None
) -> Spliced:
    given: Any = segments
    none = torch.zeros(len(mask), 0, dtype=torch.long)
    return Spliced(embeddings, mask, given, none, none, mask.sum(dim=1), is_row=wanted)
