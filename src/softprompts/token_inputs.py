"""From token ids and prompts to what a backbone reads, without a task or a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.errors import PromptError
from softprompts.prompts.arranging import arrange
from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import Edges
from softprompts.prompts.prompt import Prompt, PromptOutput
from softprompts.prompts.splice import Spliced, splice
from softprompts.training.reader import Request, find_reader, join


@final
@dataclass(frozen=True, eq=False)
class TokenInputs:
    """Token ids with prompts in place, the inputs of each prompt together.

    Attributes:
        outputs: what each prompt emitted.
        spliced: rows among tokens, for each prompt.
    """

    outputs: Sequence[PromptOutput]
    spliced: Sequence[Spliced]

    def requests(self, needs_head: bool, *, is_everywhere: bool) -> list[Request]:
        """Return what a reader is asked for: output everywhere, or at tokens."""
        last = max(one.embeddings.shape[1] for one in self.spliced) - 1
        return [
            Request(
                output,
                one,
                None if is_everywhere else one.token_positions.clamp(max=last),
                needs_head,
            )
            for output, one in zip(self.outputs, self.spliced, strict=True)
        ]


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
    found: list[tuple[PromptOutput, Spliced]] = []
    for (prompt, _), *own in zip(
        prompts, *(torch.split(one, counts) for one in tokens), strict=True
    ):
        found.append(_emit(backbone, prompt, (own[0], own[1], own[2]), draws))
    if any(output.prefixes for output, _ in found):
        _ = backbone.slots  # found now, if a prompt that exists already comes to a new backbone
    return TokenInputs([output for output, _ in found], [spliced for _, spliced in found])


def states_of(backbone: Backbone, inputs: TokenInputs, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last hidden states at tokens and at rows, zero on padding.

    Args:
        backbone: the frozen model.
        inputs: tokens with prompts in place.
        mask: 1 on tokens. Shape `(batch, tokens)`.
    """
    read = find_reader().read(backbone, inputs.requests(False, is_everywhere=True))
    length = max(one.row_positions.shape[1] for one in inputs.spliced)
    tokens, rows = [], []
    for states, one in zip(read, inputs.spliced, strict=True):  # (batch, width, hidden)
        last = states.shape[1] - 1
        tokens.append(_take(states, one.token_positions.clamp(max=last)))
        own = _take(states, one.row_positions.clamp(max=last))
        rows.append(functional.pad(own, (0, 0, 0, length - own.shape[1])))
    found = torch.cat(tokens)
    return found * mask[..., None].to(found), torch.cat(rows)


def logits_of(backbone: Backbone, inputs: TokenInputs, mask: Tensor) -> Tensor:
    """Return the logits at tokens, zero on padding. Shape `(batch, tokens, vocab)`.

    Args:
        backbone: the frozen model.
        inputs: tokens with prompts in place.
        mask: 1 on tokens. Shape `(batch, tokens)`.
    """
    read = find_reader().read(backbone, inputs.requests(True, is_everywhere=False))
    logits = read[0] if len(read) == 1 else torch.cat(read)
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
    joint = join(backbone, inputs.requests(False, is_everywhere=True))
    one = joint.spliced
    given = (one.embeddings, one.attention_mask, one.segment_ids)
    return backbone.logits(*given, gather=places, decoder=decoder, memory=joint.memory)


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
    embeddings = prompt.embed(embeddings, input_ids)
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
