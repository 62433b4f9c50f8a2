"""States that enter an upper layer, so that a forward runs from that layer on.

Where rows are read in upper layers only, the layers below see the input alone. What the last of
them gives is read once and stands for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softprompts.backbones.memory import Memory
from softprompts.backbones.probing import is_same
from softprompts.errors import BackboneError

if TYPE_CHECKING:
    from softprompts.backbones.backbone import Backbone

_PROBE = 6


@torch.no_grad()
def can_skip_layers(backbone: Backbone, num_layers: int) -> bool:
    """Return whether a backbone gives the same where its lowest layers are not run.

    Attention must be reachable, and each layer hand on states and nothing else. A short input,
    read both ways, must give the same.

    Args:
        backbone: the model.
        num_layers: layers that are not to be run, fewer than there are.
    """
    ids = torch.arange(_PROBE, device=backbone.device)[None] * (backbone.vocabulary_size // 11)
    rows, mask = backbone.embed(ids), torch.ones_like(ids)
    whole = backbone.hidden(rows, mask, None)
    try:
        assert backbone.slots  # they have been found, so that a memory can be in place
        states = read_lower_states(backbone, rows, mask, None, num_layers)
        memory = Memory(below=(num_layers, states))
        return is_same(whole, backbone.hidden(rows, mask, None, memory=memory))
    except Exception:  # whatever an unknown model does of it, all its layers are then run
        return False


@torch.no_grad()
def read_lower_states(
    backbone: Backbone,
    embeddings: Tensor,
    mask: Tensor,
    segments: Tensor | None,
    num_layers: int,
    num_keys: int = 0,
) -> Tensor:
    """Return the states that enter a layer of the encoder, encoder half or decoder.

    Args:
        backbone: the model.
        embeddings: right-padded input. Shape `(batch, tokens, embedding)`.
        mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
        segments: segment ids. Shape `(batch, tokens)`.
        num_layers: layers below, at least 1.
        num_keys: keys in front, from which a decoder counts its positions on.

    Returns:
        States in the backbone's dtype. Shape `(batch, tokens, hidden)`.

    Raises:
        BackboneError: if a layer hands on something else than states.
    """
    memory = Memory(lengths=mask.new_full((len(mask),), num_keys)) if num_keys else None
    given = backbone.stacks[0].outputs(
        lambda: backbone.read(embeddings, mask, segments, memory), num_layers
    )
    for states in given:
        if not isinstance(states, Tensor) or states.shape[:2] != embeddings.shape[:2]:
            raise BackboneError(
                f"layers of {backbone.name!r} must hand on states alone, but hand on "
                f"{type(states).__name__}."
            )
    last = given[-1]
    assert isinstance(last, Tensor)
    return last


def pad_states(states: Sequence[Tensor], width: int) -> Tensor:
    """Return states of several inputs side by side, 0 on padding.

    Args:
        states: states of each input. Shape `(tokens, hidden)` each.
        width: positions to pad to.

    Returns:
        One batch. Shape `(batch, width, hidden)`.
    """
    wide = states[0].new_zeros(len(states), width, states[0].shape[1])
    for row, one in enumerate(states):
        wide[row, : len(one)] = one
    return wide
