"""States that enter an upper layer: read once per input, and kept.

Where rows are read in upper layers only, the layers below see the input alone. What the last of
them gives stands for all of them, and a step runs the others alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.memory import Memory
from softprompts.backbones.probing import is_same
from softprompts.errors import BackboneError
from softprompts.fast.hints import Hints
from softprompts.fast.kept import Kept
from softprompts.fast.route import FastPass, Route
from softprompts.training.reader import Request

_PROBE = 6
_Input = tuple[tuple[int, ...], tuple[int, ...]]


@final
@dataclass(frozen=True, eq=False)
class Below:
    """What is known of a batch's inputs below a layer.

    Attributes:
        num_layers: layers below.
        states: what the last of them gives. Shape `(tokens, hidden)` each.
    """

    num_layers: int
    states: Sequence[Tensor]


def read_below(backbone: Backbone, request: Request, kept: Kept) -> Below | None:
    """Return the states that enter the first layer in which a prompt is read.

    Args:
        backbone: the model that is read.
        request: what is to be read.
        kept: what is kept of the backbone's inputs.

    Returns:
        What is known; `None` where all layers are to be run: the prompt is read in the first one or
        stands in the input, the backbone is trained, a caller's autocast is on, or the layers hand
        on more than states.
    """
    batch, output, stack = request.batch, request.output, backbone.stacks[0].name
    if batch is None or output is None:
        return None
    num_layers = min((slot.layer for slot in output.prefixes if slot.stack == stack), default=0)
    is_cast = torch.is_autocast_enabled(backbone.device.type)
    if not num_layers or not backbone.is_frozen or is_cast:
        return None
    if not kept.is_able(f"skip {num_layers}", lambda: can_skip_layers(backbone, num_layers)):
        return None
    first = next(iter(output.prefixes.values()))
    num_keys = first.keys.shape[2] if backbone.family == "decoder" else 0
    tokens = zip(
        batch.ids.tolist(),
        batch.segments.tolist(),
        batch.attention_mask.sum(dim=1).tolist(),
        strict=True,
    )
    wanted = [(tuple(ids[:count]), tuple(segments[:count])) for ids, segments, count in tokens]

    def read(group: Sequence[_Input]) -> list[Tensor]:
        return _read(backbone, group, num_layers, num_keys)

    return Below(num_layers, kept.find(f"below {num_layers} {num_keys}", wanted, read))


def _read(
    backbone: Backbone, group: Sequence[_Input], num_layers: int, num_keys: int
) -> list[Tensor]:
    """Read several inputs. Shape `(tokens, hidden)` each."""
    lengths = [len(ids) for ids, _ in group]
    padded = [pad_sequence([torch.tensor(one[part]) for one in group], True) for part in (0, 1)]
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    states = read_lower_states(
        backbone,
        backbone.embed(padded[0]),
        mask.to(backbone.device),
        padded[1].to(backbone.device),
        num_layers,
        num_keys,
    )
    return [one[:length].clone() for one, length in zip(states, lengths, strict=True)]


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
        route = Route(below=(num_layers, states))
        given = FastPass(backbone.stacks[0], None, route, Hints(), {})
        rest = backbone.run_body(backbone.body_inputs(rows, mask, None), given)
        return is_same(whole, rest.last_hidden_state)
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
