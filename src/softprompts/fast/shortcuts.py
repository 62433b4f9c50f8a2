"""Which shortcuts give what reading a padded batch with all layers gives; found by trying."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.layers import gather_positions
from softprompts.backbones.probing import is_same, run_low
from softprompts.fast.compiling import parts_of
from softprompts.fast.joined_inputs import JoinedInputs
from softprompts.fast.route import Route, Shortcuts
from softprompts.fast.tail import Tail

Read = Callable[[Tensor, Tensor, Tensor, Route], Tensor]
"""Returns states of embeddings and a mask, at positions, read in some way."""

Decode = Callable[[Any, Tensor, Tensor, DecoderInputs, int], Tensor]
"""Returns logits of what an encoder gave, a mask, positions, a decoder's inputs and copies."""

_LONG_TOKENS = 12
"""Tokens of three inputs that fill a row with more places than attention gives one of them."""


@torch.no_grad()
def find_shortcuts(backbone: Backbone, read: Read, decode: Decode) -> Shortcuts:
    """Read a small batch in all ways, and return which of them agree.

    Args:
        backbone: the frozen model.
        read: reads in a given way.
        decode: lets targets that follow each other read what was made once.
    """
    stack, device = backbone.stacks[0], backbone.device
    if not stack.base or backbone.is_spread:
        return Shortcuts()  # hooks of a spread model stand where layers are cut
    ids = torch.arange(15, device=device).view(3, 5) * (backbone.vocabulary_size // 16)
    counts = torch.tensor([[5], [2], [4]], device=device)
    mask = (torch.arange(5, device=device) < counts).long()
    gather = torch.tensor([[0, 3], [1, 1], [2, 3]], device=device)
    rows = backbone.embed(ids)
    with stack.counting() as runs:
        expected = gather_positions(backbone.read(rows, mask).last_hidden_state, gather)

    def agrees(route: Route) -> bool:
        try:
            return is_same(expected, read(rows, mask, gather, route))
        except Exception:  # whatever a model does with what it does not know
            return False

    shares = _can_share(backbone, rows, mask, decode)
    trims = agrees(Route(tail=Tail(gather, None), num_runs=len(runs)))
    is_joinable = device.type == "cpu" and (
        not backbone.is_compiled or all(parts_of(layer) for layer in stack.layers)
    )
    for first in _first_positions(backbone) if is_joinable else ():
        joined = JoinedInputs(mask)
        if agrees(Route(joined, first)) and _joins_long(backbone, first, read):
            tail = Tail(gather, joined)
            trims = trims and agrees(Route(joined, first, tail, len(runs)))
            return Shortcuts(True, first, len(runs), trims, shares)
    return Shortcuts(num_runs=len(runs), trims=trims, shares=shares)


def _joins_long(backbone: Backbone, first: int | None, read: Read) -> bool:
    """Return whether a joined row may have more places than attention gives an input.

    The lowest layers tell, where all are alike.
    """
    device, most = backbone.device, min(_LONG_TOKENS, backbone.context_length or _LONG_TOKENS)
    mask = torch.ones(3, most, dtype=torch.long, device=device)
    mask[1:, -1] = 0
    ids = torch.arange(3 * most, device=device).view(3, most) % 16
    rows = backbone.embed(ids * (backbone.vocabulary_size // 16))
    gather = torch.tensor([[0, most - 2]] * 3, device=device)

    def states(route: Route) -> Tensor:
        return read(rows, mask, gather, route)

    stack, joined = backbone.stacks[0], Route(JoinedInputs(mask), first)
    try:
        return is_same(
            run_low(stack, lambda: states(Route())), run_low(stack, lambda: states(joined))
        )
    except Exception:  # whatever a model does with what it does not know
        return False


def _can_share(backbone: Backbone, rows: Tensor, mask: Tensor, decode: Decode) -> bool:
    """Return whether a decoder reads the same where targets read keys that were made once."""
    if backbone.family != "encoder-decoder" or not backbone.has_language_head:
        return False
    num_targets = 2 * len(mask)
    source = torch.arange(num_targets, device=mask.device) // 2
    ids = (torch.arange(3 * num_targets, device=mask.device) % 7).view(num_targets, 3)
    decoder = DecoderInputs(ids, source, torch.ones_like(ids))

    def logits(copies: int) -> Tensor:
        return decode(backbone.read(rows, mask), mask, ids % 3, decoder, copies)

    expected = logits(1)
    try:
        return is_same(expected, logits(2))
    except Exception:  # whatever a model does with what it does not know
        return False


def _first_positions(backbone: Backbone) -> Sequence[int | None]:
    """Return what a model may call its first position: 0, or the one behind padding's."""
    body = backbone.stacks[0].body
    if "position_ids" not in inspect.signature(body.forward).parameters:
        return (None,)
    return (0, (backbone.tokenizer.pad_token_id or 0) + 1)
