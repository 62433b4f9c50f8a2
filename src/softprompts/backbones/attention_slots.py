"""Which attentions of a backbone a memory can reach, and what they make of an input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.attention import IMPLEMENTATIONS
from softprompts.backbones.frozen_model import FrozenModel
from softprompts.backbones.memory import KeyValues, Memory, Slot
from softprompts.backbones.probing import difference, is_same, short_ids, short_input
from softprompts.errors import BackboneError

_SUPPORTED = tuple(IMPLEMENTATIONS[name] for name in ("eager", "sdpa", "plain", "fused"))


@torch.no_grad()
def find_slots(backbone: FrozenModel) -> tuple[Slot, ...]:
    """Find the attentions of a backbone, and try a memory on them; see `Backbone.slots`.

    A gate of 0 must hide a position, and a hidden prefix must change nothing. Positions are given:
    some models count them from the mask, which has a gap here.
    """
    slots, rows = locate_slots(backbone), short_input(backbone)
    mask = torch.ones(rows.shape[:2], dtype=torch.long, device=backbone.device)
    gates = torch.ones(rows.shape[:2], device=backbone.device)
    mask[:, 1] = gates[:, 1] = 0
    none = torch.zeros(1, dtype=torch.long, device=backbone.device)
    hidden = backbone.hidden(rows, mask, None, memory=Memory(lengths=none))
    gated = backbone.hidden(rows, torch.ones_like(mask), None, memory=Memory(gates=gates))
    keep = [0, 2, 3]
    shown = torch.zeros(1, 2, dtype=torch.long, device=backbone.device)
    ones = {slot: rows.new_ones(1, slot.heads, 2, slot.size) for slot in slots}
    prefixes = {slot: KeyValues(values, values, shown) for slot, values in ones.items()}
    memory = Memory(prefixes, lengths=shown.sum(dim=1))
    beside = backbone.hidden(rows, mask, None, memory=memory)
    for found, what in ((gated, "gates"), (beside, "hidden keys")):
        if not is_same(hidden[:, keep], found[:, keep]):
            raise BackboneError(
                f"attention of {backbone.name!r} must obey {what} for a prompt that reaches into "
                "it, but does not."
            )
    return slots


@torch.no_grad()
def locate_slots(backbone: FrozenModel) -> tuple[Slot, ...]:
    """Find the attentions of a backbone, whatever they make of a memory; see `find_slots`."""
    names = [stack.base or "mixed" for stack in backbone.stacks]
    if not set(names) <= set(_SUPPORTED):
        raise BackboneError(
            f"attention of {backbone.name!r} must be {' or '.join(_SUPPORTED)} for a prompt that "
            f"reaches into it, but is {', '.join(names)}."
        )
    rows = short_input(backbone)
    mask = torch.ones(rows.shape[:2], dtype=torch.long, device=backbone.device)
    backbone.stacks[0].find_slots(lambda: backbone.read(rows, mask), None)
    for decoder in backbone.stacks[1:]:
        decoder.find_slots(lambda: _run_both(backbone, rows, rows[:, 1:]), rows.shape[1])
    if not all(stack.slots for stack in backbone.stacks):
        kind = backbone.model.config.model_type
        raise BackboneError(
            f"attention of {backbone.name!r} must go through transformers' attention interface for "
            f"a prompt that reaches into it, but that of {kind!r} does not."
        )
    return tuple(slot for stack in backbone.stacks for slot in stack.slots or ())


@torch.no_grad()
def read_keys_and_values(backbone: FrozenModel, rows: Tensor) -> dict[Slot, KeyValues]:
    """Return what a backbone makes of rows; see `Backbone.keys_and_values`."""
    assert backbone.slots
    inputs = rows.to(backbone.device, backbone.dtype)[None]  # (1, length, embedding)
    mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=backbone.device)
    found = backbone.stacks[0].record(lambda: backbone.read(inputs, mask))
    own = inputs * _decoder_factor(backbone)
    for decoder in backbone.stacks[1:]:
        found |= decoder.record(lambda: _run_both(backbone, inputs, own))
    place = backbone.device
    pairs = {slot: (keys.to(place), values.to(place)) for slot, (keys, values) in found.items()}
    return {slot: KeyValues(*pair) for slot, pair in pairs.items()}


def _run_both(backbone: FrozenModel, rows: Tensor, own: Tensor) -> Any:
    """Run both halves of an encoder-decoder; the decoder reads rows of its own."""
    mask = torch.ones(rows.shape[:2], dtype=torch.long, device=backbone.device)
    encoded = backbone.read(rows, mask)
    return backbone.model.get_decoder()(
        inputs_embeds=own,
        encoder_hidden_states=encoded.last_hidden_state,
        encoder_attention_mask=mask,
        use_cache=False,
    )


def _decoder_factor(backbone: FrozenModel) -> float:
    """Return the factor with which a decoder reads rows of the encoder's tokens as its own."""
    if backbone.embedding_scale == 1 or backbone.family != "encoder-decoder":
        return 1.0
    rows, decoder, ids = short_input(backbone), backbone.model.get_decoder(), short_ids(backbone)
    encoded = backbone.read(rows, torch.ones_like(ids)).last_hidden_state
    expected = decoder(input_ids=ids, encoder_hidden_states=encoded, use_cache=False)

    def miss(factor: float) -> float:
        found = _run_both(backbone, rows, rows * factor)
        return difference(expected.last_hidden_state, found.last_hidden_state)

    return min((1.0, 1 / backbone.embedding_scale), key=miss)
