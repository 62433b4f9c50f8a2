"""From token ids and prompts to what a backbone reads, without a task or a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.memory import Memory
from softprompts.backbones.passing import DecoderInputs
from softprompts.errors import PromptError
from softprompts.prompts.arranging import arrange, join_memories
from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import Edges
from softprompts.prompts.prompt import Prompt, PromptOutput
from softprompts.prompts.splice import Spliced, concatenate, splice


@final
@dataclass(frozen=True, eq=False)
class TokenInputs:
    """Token ids with prompts in place.

    Attributes:
        spliced: what the backbone reads.
        memory: what attention reads beside it.
        token_places: where each token went. Shape `(batch, tokens)`.
        row_places: where each row went. Shape `(batch, length)`.
        row_mask: 1 on rows of an input, 0 where its prompt has fewer. Shape `(batch, length)`.
    """

    spliced: Spliced
    memory: Memory | None
    token_places: Tensor
    row_places: Tensor
    row_mask: Tensor


def read_tokens(
    backbone: Backbone,
    tokens: tuple[Tensor, Tensor, Tensor],
    prompts: Sequence[tuple[Prompt, int]],
    draws: Draws | None,
) -> TokenInputs:
    """Put prompts among token ids, without columns that are all padding.

    Args:
        backbone: the frozen model.
        tokens: token ids, mask and segment ids. Shape `(batch, tokens)` each.
        prompts: each prompt, and how many inputs it has: the first ones, the next ones, and so on.
        draws: noise and dropout; `None` means evaluation.

    Raises:
        PromptError: if an input and its prompt together are longer than the context.
    """
    counts = [count for _, count in prompts]
    parts: list[Spliced] = []
    outputs: list[PromptOutput] = []
    for (prompt, _), *own in zip(
        prompts, *(torch.split(one, counts) for one in tokens), strict=True
    ):
        output, spliced = _emit(backbone, prompt, (own[0], own[1], own[2]), draws)
        outputs.append(output)
        parts.append(spliced)
    joint = concatenate(parts)
    memory = join_memories(outputs, joint)
    if memory is not None:
        _ = backbone.slots  # found now, if a prompt that exists already comes to a new backbone
    last = joint.embeddings.shape[1] - 1
    length = max(part.row_positions.shape[1] for part in parts)
    rows, shown = [], []
    for part in parts:
        width = part.row_positions.shape[1]
        pad = (0, length - width)
        rows.append(torch.nn.functional.pad(part.row_positions, pad))
        shown.append(torch.nn.functional.pad(torch.ones_like(part.row_positions), pad))
    places = torch.cat([part.token_positions for part in parts])
    return TokenInputs(
        joint,
        memory,
        places.clamp(max=last),
        torch.cat(rows).clamp(max=last),
        torch.cat(shown),
    )


def states_of(backbone: Backbone, inputs: TokenInputs, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last hidden states at tokens and at rows, zero on padding.

    Args:
        backbone: the frozen model.
        inputs: tokens with prompts in place.
        mask: 1 on tokens. Shape `(batch, tokens)`.
    """
    states = backbone.hidden(*_spliced(inputs), memory=inputs.memory)  # (batch, width, hidden)
    tokens = _take(states, inputs.token_places) * mask[..., None].to(states)
    return tokens, _take(states, inputs.row_places) * inputs.row_mask[..., None].to(states)


def logits_of(backbone: Backbone, inputs: TokenInputs, mask: Tensor) -> Tensor:
    """Return the logits at tokens, zero on padding. Shape `(batch, tokens, vocab)`.

    Args:
        backbone: the frozen model.
        inputs: tokens with prompts in place.
        mask: 1 on tokens. Shape `(batch, tokens)`.
    """
    given = _spliced(inputs)
    logits = backbone.logits(*given, gather=inputs.token_places, memory=inputs.memory)
    return logits * mask[..., None].to(logits)


def decoder_logits(backbone: Backbone, inputs: TokenInputs, ids: Tensor) -> Tensor:
    """Return the logits of the decoder half. Shape `(batch, targets, vocab)`.

    Args:
        backbone: an encoder-decoder.
        inputs: what its encoder reads.
        ids: what its decoder reads. Shape `(batch, targets)`.
    """
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    source = torch.arange(len(ids), device=ids.device)
    decoder = DecoderInputs(ids, source, torch.ones_like(ids))
    given = _spliced(inputs)
    return backbone.logits(*given, gather=places, decoder=decoder, memory=inputs.memory)


def _spliced(inputs: TokenInputs) -> tuple[Tensor, Tensor, Tensor]:
    spliced = inputs.spliced
    return spliced.embeddings, spliced.attention_mask, spliced.segment_ids


def _take(states: Tensor, places: Tensor) -> Tensor:
    """Gather states at places. Shape `(batch, slots, hidden)`."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))


def _emit(
    backbone: Backbone,
    prompt: Prompt,
    tokens: tuple[Tensor, Tensor, Tensor],
    draws: Draws | None,
) -> tuple[PromptOutput, Spliced]:
    """Return what one prompt emits, and its inputs with the rows in place."""
    input_ids, mask, segments = tokens
    start, end = _edges(backbone, prompt, input_ids, mask)
    embeddings = backbone.embed(input_ids)
    instances = None
    if prompt.needs_instances:
        instances = _instances(backbone, prompt, (embeddings, mask, segments))
    output = prompt(Edges.unmarked(start, end), instances, draws)
    spliced = arrange(output, (embeddings, mask, segments), (start, end))
    taken = longest = int(spliced.lengths.max())
    limit = backbone.context_length
    if output.prefixes and backbone.family == "decoder":
        taken += prompt.length
    if limit is not None and taken > limit:
        raise PromptError(
            f"input and prompt must take at most {limit} positions of {backbone.name}, but "
            f"take {taken}."
        )
    return output, spliced.cut(longest)


def _edges(
    backbone: Backbone, prompt: Prompt, input_ids: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Find where rows before and behind the input stand, by the special tokens there."""
    tokens = input_ids.shape[1]
    places = torch.arange(tokens, device=input_ids.device)
    first = mask.long().argmax(dim=1)  # (batch,)
    stop = (mask * (places + 1)).max(dim=1).values  # (batch,)
    frame = backbone.frame
    if backbone.family != "decoder" or prompt.position.after_bos:
        first = first + _matching(input_ids, first, frame.prefix)
    size = len(frame.single_suffix)
    begin = (stop - size).clamp(min=0)
    return first, stop - _matching(input_ids, begin, frame.single_suffix)


@torch.no_grad()
def _instances(backbone: Backbone, prompt: Prompt, tokens: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the instance vector of each input. Shape `(batch, hidden)`, or as embeddings."""
    embeddings, mask, segments = tokens
    if prompt.instance == "embeddings":
        kept = mask[..., None]
        return (embeddings.float() * kept).sum(dim=1) / kept.sum(dim=1)
    none = embeddings.new_zeros(len(embeddings), 0, embeddings.shape[-1])
    bare = splice(embeddings, mask, segments, none, mask.new_zeros(len(embeddings), 0))
    inputs = (bare.embeddings, bare.attention_mask, bare.segment_ids)
    states = backbone.hidden(*inputs).float()  # (batch, tokens, hidden)
    keep = bare.attention_mask[..., None]
    return (states * keep).sum(dim=1) / keep.sum(dim=1)


def _matching(input_ids: Tensor, begin: Tensor, expected: tuple[int, ...]) -> Tensor:
    """Return `len(expected)` where these tokens stand at `begin`, else 0. Shape `(batch,)`."""
    if not expected:
        return torch.zeros_like(begin)
    offsets = torch.arange(len(expected), device=begin.device)
    places = (begin[:, None] + offsets).clamp(max=input_ids.shape[1] - 1)
    found = input_ids.gather(1, places) == torch.tensor(expected, device=begin.device)
    return found.all(dim=1).long() * len(expected)
