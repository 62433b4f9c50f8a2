"""What the decoder of an encoder-decoder reads, and positions that count from an offset on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from softprompts.errors import BackboneError


@final
@dataclass(frozen=True)
class DecoderInputs:
    """What the decoder of an encoder-decoder reads; a target is one decoder sequence.

    Attributes:
        ids: decoder input ids, already shifted right. Shape `(targets, width)`.
        source: row of the encoder batch that each target reads, long. Shape `(targets,)`.
        mask: 1 at real positions, 0 at padding, long. Shape `(targets, width)`.
    """

    ids: Tensor
    source: Tensor
    mask: Tensor


def count_copies(source: Tensor, batch: int) -> int:
    """Return how many targets read each input, one after the other in order; 1 where that differs.

    Args:
        source: the input that each target reads, long. Shape `(targets,)`.
        batch: inputs.
    """
    copies, rest = divmod(len(source), batch)
    if rest or copies < 2:
        return 1
    each = torch.arange(batch, device=source.device).repeat_interleave(copies)
    return copies if torch.equal(source, each) else 1


def decoder_call(
    encoded: Any, mask: Tensor, decoder: DecoderInputs, copies: int = 1
) -> dict[str, Any]:
    """Return keyword arguments of an encoder-decoder whose encoder has run already.

    Args:
        encoded: what the encoder gave.
        mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
        decoder: what the decoder reads.
        copies: targets that read each input, from `count_copies`, where attention knows of it.
    """
    batch = torch.arange(len(mask), device=mask.device)
    if copies == 1 and not torch.equal(decoder.source, batch):
        states = encoded.last_hidden_state.index_select(0, decoder.source)
        encoded.last_hidden_state = states  # (targets, tokens, hidden)
        mask = mask.index_select(0, decoder.source)
    return {
        "encoder_outputs": encoded,
        "attention_mask": mask,
        "decoder_input_ids": decoder.ids,
        "decoder_attention_mask": decoder.mask,
        "return_dict": True,
    }


def decoder_start(model: Any, name: str) -> int:
    """Return the token that a decoder's inputs begin with.

    Args:
        model: an encoder-decoder.
        name: the backbone's name.

    Raises:
        BackboneError: if the model names none.
    """
    start = getattr(model.config, "decoder_start_token_id", None)
    if start is None and getattr(model, "generation_config", None) is not None:
        start = model.generation_config.decoder_start_token_id
    if not isinstance(start, int):
        raise BackboneError(
            f"decoder_start_token_id of backbone {name!r} must be a token id, but is {start!r}."
        )
    return start


def positions_behind(
    attention_mask: Tensor, offsets: Tensor, most: int | None, name: str
) -> Tensor:
    """Return positions that count from an offset on. Shape `(batch, tokens)`.

    Args:
        attention_mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
        offsets: keys before each input. Shape `(batch,)`.
        most: most positions, or `None`.
        name: the backbone's name.

    Raises:
        BackboneError: if tokens and keys are more than that.
    """
    places = torch.arange(attention_mask.shape[1], device=offsets.device) + offsets[:, None]
    if most is None:
        return places
    furthest = int((attention_mask.sum(dim=1) + offsets).max())
    if furthest > most:
        raise BackboneError(
            f"tokens and the keys before them must be at most {most}, the context length of "
            f"{name!r}, but are {furthest}."
        )
    return places.clamp(max=most - 1)  # padding may lie beyond
