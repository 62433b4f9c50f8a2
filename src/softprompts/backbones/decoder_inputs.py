"""Parts of a forward: what a decoder reads, and states at chosen positions only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from softprompts.errors import BackboneError

T = TypeVar("T")


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


def gather_positions(states: Tensor, gather: Tensor) -> Tensor:
    """Return states at positions. Shapes `(batch, tokens, hidden)` and `(batch, slots)`."""
    batch, tokens, hidden = states.shape
    check_gather(gather, batch)
    firsts = torch.arange(batch, device=gather.device)[:, None] * tokens
    flat = states.reshape(-1, hidden).index_select(0, (gather + firsts).flatten())
    return flat.view(*gather.shape, hidden)  # whole rows: gathering entries takes six times as long


def check_tokens(
    shape: torch.Size, given: Mapping[str, Tensor | None], most: int | None, backbone: str
) -> None:
    """Check what comes with the embeddings of a batch.

    Args:
        shape: inputs and tokens of the batch.
        given: what has an entry per token, by name.
        most: most tokens, or `None`.
        backbone: the backbone's name.

    Raises:
        BackboneError: if a shape or type is another, or tokens are too many.
    """
    for name, value in given.items():
        if value is not None and value.shape != shape:
            raise BackboneError(
                f"{name} must have shape {tuple(shape)}, but has {tuple(value.shape)}."
            )
        if value is not None and value.is_floating_point():
            raise BackboneError(f"{name} must hold whole numbers, but is {value.dtype}.")
    if most is not None and shape[1] > most:
        raise BackboneError(
            f"tokens must be at most {most}, the context length of {backbone!r}, but are "
            f"{shape[1]}."
        )


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


def check_gather(gather: Tensor, batch: int) -> None:
    """Check that there are positions for each input.

    Args:
        gather: positions, long. Shape `(batch, slots)`.
        batch: how many inputs there are.

    Raises:
        BackboneError: if its shape is another.
    """
    if gather.dim() != 2 or gather.shape[0] != batch or not gather.shape[1]:
        raise BackboneError(
            f"gather must have shape ({batch}, k) with k > 0, but has {tuple(gather.shape)}."
        )


def call_only_at(body: nn.Module, gather: Tensor, call: Callable[[], T]) -> T:
    """Return what a call gives while `body` gives its last hidden state at some positions only.

    Args:
        body: the encoder or decoder.
        gather: the positions, long. Shape `(batch, slots)`.
        call: runs it once.

    Raises:
        BackboneError: if it does not.
    """
    num_calls = 0

    def keep(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        states = output.last_hidden_state
        output.last_hidden_state = gather_positions(states, gather.to(states.device))
        return output

    handle = body.register_forward_hook(keep)
    try:
        found = call()
    finally:
        handle.remove()
    if num_calls != 1:
        raise BackboneError(f"the body must run once before the head, but ran {num_calls} times.")
    return found
