"""What the frozen backbone says of an input by itself never changes: it is read once.

Two things need it: runs without a prompt, whose pooled states depend on the input alone, and
prompts that look at instance vectors. Both are computed once per process and shared by all seeds.
Every input is read by itself, not in a batch: floating-point sums differ with the padding beside
them, and a run that is resumed must see the numbers it saw before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import Batch, collate
from softprompts.encoding.inputs import EncodedExample, EncodedInput
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.splice import Spliced, splice
from softprompts.readouts.base import Readout

_MAX_ENTRIES = 65536
_Key = tuple[str, tuple[int, ...], tuple[int, ...]]
_KEPT: WeakKeyDictionary[Backbone, OrderedDict[_Key, Tensor]] = WeakKeyDictionary()


def is_bare(prompt: Prompt, readout: Readout) -> bool:
    """Return whether scores depend on the input and the readout's own head alone."""
    return not readout.needs_head and prompt.length == 0


def bare_summary(backbone: Backbone, readout: Readout, batch: Batch) -> Tensor:
    """Return the readout's summary of a batch that no prompt takes part in.

    Args:
        backbone: the frozen model.
        readout: a readout of hidden states.
        batch: the batch.

    Returns:
        What `readout.summary` returns, from memory where the input was read before.
    """

    def read(item: EncodedInput) -> Tensor:
        one, spliced = _alone(backbone, item)
        places = readout.places(one, spliced)
        return readout.summary(_hidden(backbone, spliced, places), one)

    return _remember(backbone, f"summary/{readout.summary_name}", batch.items, read)


def instance_vectors(backbone: Backbone, batch: Batch) -> Tensor:
    """Return the mean of the last hidden state over each input's own tokens.

    Label tokens that follow an input do not enter its vector, so the label being scored cannot
    choose the prompt.

    Args:
        backbone: the frozen model.
        batch: the batch.

    Returns:
        Vectors, float32, from memory where the input was read before. Shape `(inputs, hidden)`.

    Reference:
        Yang et al. (2023), arXiv 2303.02909, section 3.2.

    Differences:
        The authors' code averages over padding too, leaves dropout on, and runs the encoder again
        at every step.
    """

    def read(item: EncodedInput) -> Tensor:
        _, spliced = _alone(backbone, item)
        states = _hidden(backbone, spliced, spliced.token_positions)
        return states.float().mean(dim=1)  # (1, hidden)

    return _remember(backbone, "instance", [_without_labels(i) for i in batch.items], read)


def _without_labels(item: EncodedInput) -> EncodedInput:
    """Return an input without the label tokens at its end."""
    if not item.num_continuation_tokens:
        return item
    size = len(item.ids) - item.num_continuation_tokens
    return replace(
        item,
        ids=item.ids[:size],
        segments=item.segments[:size],
        roles=item.roles[:size],
        num_continuation_tokens=0,
    )


@torch.no_grad()
def _remember(
    backbone: Backbone,
    name: str,
    items: list[EncodedInput] | tuple[EncodedInput, ...],
    read: Callable[[EncodedInput], Tensor],
) -> Tensor:
    """Return `read` of each item, read once per process. Shape `(items, width)`."""
    kept = _KEPT.setdefault(backbone, OrderedDict())
    values = []
    for item in items:
        key = (name, item.ids, item.segments)
        if key not in kept:
            kept[key] = read(item)
            if len(kept) > _MAX_ENTRIES:
                kept.popitem(last=False)
        values.append(kept[key])
    return torch.cat(values)


def _alone(backbone: Backbone, item: EncodedInput) -> tuple[Batch, Spliced]:
    """Return a batch of one input without its targets, and its splice with no rows."""
    item = replace(item, targets=())
    example = EncodedExample((item,), max(1, item.column + 1), (), False)
    batch = collate([example], backbone.tokenizer.pad_token_id).to(backbone.device)
    empty = torch.zeros(1, 0, backbone.embedding_size, device=backbone.device)
    anchors = torch.zeros(1, 0, dtype=torch.long, device=backbone.device)
    embeddings = backbone.embed(batch.ids)
    return batch, splice(embeddings, batch.attention_mask, batch.segments, empty, anchors)


def _hidden(backbone: Backbone, spliced: Spliced, places: Tensor) -> Tensor:
    """Return hidden states at places. Shape `(batch, slots, hidden)`."""
    inputs = (spliced.embeddings, spliced.attention_mask, spliced.segment_ids)
    return backbone.hidden(*inputs, gather=places)
