"""Writing text: a decoder or encoder-decoder continues an input that a prompt is part of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.memory import Memory
from softprompts.errors import BackboneError

_OURS = ("inputs_embeds", "input_ids", "attention_mask", "position_ids", "encoder_outputs")


@torch.no_grad()
def generate(
    backbone: Backbone,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    memory: Memory | None = None,
    **options: Any,
) -> Tensor:
    """Return the tokens that a backbone writes after an input.

    Switched-off rows are hidden by the attention mask here; the text is the same with and without
    a key/value cache.

    Args:
        backbone: a decoder or encoder-decoder with a language head.
        inputs: right-padded embeddings, attention mask and segment ids, as `Backbone.logits` takes
            them. Shape `(batch, tokens, embedding)`, and `(batch, tokens)` for the others.
        memory: what attention is given beside the input.
        options: arguments of `generate` of transformers, such as `max_new_tokens`, `num_beams`,
            `do_sample` or `use_cache`.

    Returns:
        Token ids, without the input; of an encoder-decoder with its start token; several sequences
        of one input follow each other. Shape `(batch, tokens)`.

    Raises:
        BackboneError: if the backbone does not write text, or an option belongs to the input.
    """
    if backbone.family == "encoder" or not backbone.has_language_head:
        raise BackboneError(
            f"backbone {backbone.name!r} must be a decoder or encoder-decoder with a trained "
            f"language head to write text, but is of family {backbone.family!r}."
        )
    wrong = sorted(set(options) & set(_OURS))
    if wrong:
        raise BackboneError(f"`{wrong[0]}` must be left out, since it is made from the input.")
    options.setdefault("pad_token_id", backbone.tokenizer.pad_token_id)
    copies = max(options.get("num_beams") or 1, options.get("num_return_sequences") or 1)
    batch = torch.arange(len(inputs[0]), device=backbone.device).repeat_interleave(copies)
    if backbone.family == "encoder-decoder":
        return _write_from_encoder(backbone, inputs, (memory, batch), options)
    return _write_on(backbone, inputs, (memory, batch), options)


def _write_from_encoder(
    backbone: Backbone,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    given: tuple[Memory | None, Tensor],
    options: dict[str, Any],
) -> Tensor:
    """Run the encoder once and let the decoder write."""
    memory, batch = given
    mask = _hide_closed(inputs[1], memory)
    encoded = backbone.read(*inputs, memory)
    aside = None if memory is None else replace(_hidden(memory), gates=None).take(batch)
    with backbone.stacks[-1].running(aside):
        ids: Tensor = backbone.model.generate(
            encoder_outputs=encoded, attention_mask=mask, **options
        )
    return ids


def _write_on(
    backbone: Backbone,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    given: tuple[Memory | None, Tensor],
    options: dict[str, Any],
) -> Tensor:
    """Let a decoder continue; its input is padded on the left for that."""
    embeddings, whole, _ = inputs
    memory, batch = given
    width = whole.shape[1]
    places = torch.arange(width, device=whole.device) - (width - whole.sum(dim=1, keepdim=True))
    sources = places % width  # (batch, tokens): what stands at each place, padding first
    positions = places.clamp(min=0)
    aside = None
    if memory is not None:
        aside = replace(_hidden(memory), gates=None).take(batch)
        if memory.offsets is not None:
            positions = positions + memory.offsets[:, None]
    mask = _hide_closed(whole, memory).gather(1, sources)
    with backbone.stacks[-1].running(aside):
        ids: Tensor = backbone.model.generate(
            inputs_embeds=embeddings.gather(1, sources[..., None].expand_as(embeddings)),
            attention_mask=mask,
            position_ids=positions,
            **options,
        )
    return ids


def _hide_closed(mask: Tensor, memory: Memory | None) -> Tensor:
    """Return the mask without positions whose gate is 0. Shape `(batch, tokens)`."""
    if memory is None or memory.gates is None:
        return mask
    return mask * (memory.gates > 0)


def _hidden(memory: Memory) -> Memory:
    """Return the memory with closed rows hidden rather than weighed."""
    if memory.prefix_gates is None:
        return memory
    is_open = (memory.prefix_gates > 0).long()  # (batch, length)
    prefixes = {
        slot: replace(pair, shown=is_open if pair.shown is None else pair.shown * is_open)
        for slot, pair in memory.prefixes.items()
    }
    return replace(memory, prefixes=prefixes, prefix_gates=None)
