"""Keys and values of an input's first tokens, so that a decoder reads on from there.

Tokens in front of the first row see neither it nor anything else that is trained: in every layer
their keys and values are those of the frozen backbone, whatever the prompt behind them. Read once,
one input at a time as all that is read of inputs alone, they are given to the attention of a
forward over the rest: rows, the template's tail and label tokens. So it is with demonstrations,
which stand in front of every input of a run without rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from softprompts.backbones.attention_slots import locate_slots
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.memory import KeyValues, Memory, Slot
from softprompts.backbones.probing import is_same

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}
_PROBE, _PROBE_LEAD = 14, 9


@final
@dataclass(frozen=True, eq=False)
class Ahead:
    """What is known of the first tokens of a batch's inputs.

    Attributes:
        lead: how many of them need not be read again. Shape `(inputs,)`.
        kept: their keys and values, of these tokens or more. Shape `(tokens, width)` each.
        slots: the attentions that keys and values belong to.
    """

    lead: Tensor
    kept: Sequence[Tensor]
    slots: Sequence[Slot]


def can_read_on(backbone: Backbone) -> bool:
    """Return whether a backbone reads on from kept keys as it reads a whole input.

    Only a decoder can: its tokens see nothing behind them. Its attention must be reachable, each
    layer must mix tokens by attention alone, windows must be told to the attention, and rotations
    must not depend on the length of the input. A short input, read both ways, must give the same.

    Args:
        backbone: the model.
    """
    if backbone.family != "decoder" or backbone.frame.segments != (0, 0):
        return False
    if _has_length_dependent_rotation(backbone.model):
        return False
    try:
        slots = locate_slots(backbone)
        return _is_attention_alone(backbone, slots) and _is_tried(backbone, slots)
    except Exception:  # whatever an unknown model does of it, it is then read whole
        return False


@torch.no_grad()
def read_input_keys(backbone: Backbone, ids: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the keys and values that a decoder makes of token sequences.

    Args:
        backbone: a decoder whose attentions were located.
        ids: token sequences, at least one, none of them empty; read in one padded batch.

    Returns:
        Of each sequence `[K_1 V_1 K_2 V_2 …]`, all heads of all attentions side by side. Shape
        `(tokens, width)` each.
    """
    lengths = [len(one) for one in ids]
    tokens = torch.zeros(len(ids), max(lengths), dtype=torch.long)
    for row, one in enumerate(ids):
        tokens[row, : len(one)] = torch.tensor(one)
    places = torch.arange(max(lengths))
    mask = (places < torch.tensor(lengths)[:, None]).long().to(backbone.device)
    embeddings = backbone.embed(tokens)  # (batch, tokens, embedding)
    found = backbone.stacks[0].record(lambda: backbone.read(embeddings, mask))
    parts = [part for pair in found.values() for part in pair]
    wide = torch.cat([part.transpose(1, 2).flatten(2) for part in parts], dim=2)
    return [one[:length].clone() for one, length in zip(wide, lengths, strict=True)]


def input_memory(slots: Sequence[Slot], kept: Sequence[Tensor], lengths: Tensor) -> Memory:
    """Return kept keys and values as a memory.

    Args:
        slots: the attentions of the decoder.
        kept: of each input, as `read_input_keys` returns them. Shape `(tokens, width)` each.
        lengths: how many of its first tokens each input takes. Shape `(batch,)`.
    """
    counts = lengths.tolist()
    shape = (len(kept), max(counts), kept[0].shape[1])
    shown = None
    if len(set(counts)) == 1 and all(one is kept[0] for one in kept):  # what all inputs share
        wide = kept[0][: counts[0]].expand(shape)
    else:
        wide = kept[0].new_empty(shape)  # (batch, length, width)
        for row, (one, count) in enumerate(zip(kept, counts, strict=True)):
            wide[row, :count] = one[:count]
            wide[row, count:] = 0
        shown = torch.arange(shape[1], device=lengths.device) < lengths[:, None]
    prefixes, begin = {}, 0
    for slot in slots:
        pair = []
        for _ in range(2):
            part = wide[..., begin : begin + slot.width]  # (batch, length, width)
            part = part.reshape(*shape[:2], slot.heads, slot.size)
            pair.append(part.transpose(1, 2))  # (batch, heads, length, size)
            begin += slot.width
        prefixes[slot] = KeyValues(pair[0], pair[1], shown, is_input=True)
    return Memory(prefixes, lengths=lengths)


def _has_length_dependent_rotation(model: Any) -> bool:
    """Return whether positions are rotated otherwise in long inputs than in short ones."""
    found: list[Any] = [getattr(module, "rope_type", "") for module in model.modules()]
    kinds = [kind for one in found for kind in (one.values() if isinstance(one, dict) else [one])]
    return any("dynamic" in str(kind) or "longrope" in str(kind) for kind in kinds)


def _is_attention_alone(backbone: Backbone, slots: Sequence[Slot]) -> bool:
    """Return whether each layer has one attention, whose window is the one that is configured."""
    config = backbone.model.config.get_text_config(decoder=True)
    num_layers = len(backbone.stacks[0].layers)
    if [slot.layer for slot in slots] != list(range(num_layers)):
        return False
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if kinds is None:
        return all(slot.window == window for slot in slots)
    is_sliding = [kind == "sliding_attention" for kind in kinds[:num_layers]]
    told = [slot.window is not None for slot in slots]
    return set(kinds) <= _KNOWN_LAYERS and is_sliding == told


@torch.no_grad()
def _is_tried(backbone: Backbone, slots: Sequence[Slot]) -> bool:
    """Return whether a short input has the same states, read whole and read on from kept keys."""
    limit = backbone.context_length
    tokens = _PROBE if limit is None else min(_PROBE, limit)
    lead = min(_PROBE_LEAD, tokens - 1)
    ids = torch.arange(tokens, device=backbone.device)[None] * (backbone.vocabulary_size // 17 or 1)
    ids = ids % backbone.vocabulary_size
    rows, mask = backbone.embed(ids), torch.ones_like(ids)
    kept = read_input_keys(backbone, ids[:, :lead].tolist())
    memory = input_memory(slots, kept, mask[:, :lead].sum(dim=1))
    whole = backbone.hidden(rows, mask, None)[:, lead:]
    return is_same(whole, backbone.hidden(rows[:, lead:], mask[:, lead:], None, memory=memory))
