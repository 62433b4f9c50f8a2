"""What the frozen backbone says of an input by itself never changes: it is read once.

Two things need it: runs without a prompt, whose pooled states depend on the input alone, and
prompts that look at instance vectors. A reader may keep both. Every input is read by itself, not in
a batch: floating-point sums differ with the padding beside them, and a run that is resumed must see
the numbers it saw before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import Batch, collate
from softprompts.encoding.inputs import EncodedExample, EncodedInput
from softprompts.prompts.prompt import InstanceKind, Prompt
from softprompts.prompts.splice import Spliced, splice
from softprompts.readouts.base import Readout
from softprompts.readouts.registry import READOUTS
from softprompts.training.reader import PlainReader, Request, find_reader


def is_bare(backbone: Backbone, prompt: Prompt, readout: Readout) -> bool:
    """Return whether scores depend on the input and the readout's own head alone."""
    is_alone = prompt.length == 0 and not prompt.changes_tokens
    return backbone.is_frozen and not readout.needs_head and is_alone


def bare_summary(backbone: Backbone, readout: Readout, batch: Batch) -> Tensor:
    """Return the readout's summary of a batch that no prompt takes part in.

    Args:
        backbone: the frozen model.
        readout: a readout of hidden states.
        batch: the batch.

    Returns:
        What `readout.summary` returns, kept where the input was read before.
    """
    items = batch.items
    origin, version = _origin(readout)
    kind = f"summary/{readout.summary_name}/{origin}/{version}"

    def read(place: int) -> Tensor:
        one, spliced = _alone(backbone, items[place])
        places = readout.places(one, spliced)
        return readout.summary(_hidden(backbone, spliced, places), one)

    keys = [
        (
            *(kind, item.ids, item.segments, item.roles, item.slots),
            (item.start, item.end, item.num_continuation_tokens),
        )
        for item in items
    ]
    return _find(backbone, keys, read, is_durable=version is not None)


def instance_vectors(backbone: Backbone, batch: Batch, kind: InstanceKind = "states") -> Tensor:
    """Return one vector per input that says what the input is, whatever the prompt.

    `states` is the mean of the last hidden state, read without a prompt, over the input's own
    tokens. `embeddings` is the mean of their input embeddings, which costs no forward. Special
    tokens of the input count in both. Label tokens that follow an input do not enter its vector,
    so the label being scored cannot choose the prompt; padding does not either.

    Args:
        backbone: the frozen model.
        batch: the batch.
        kind: what a vector is.

    Returns:
        Vectors, float32, kept where the input was read before. Shape `(inputs, hidden)`, or
        `(inputs, embedding)` for `embeddings`.

    Reference:
        Yang et al. (2023), arXiv 2303.02909, section 3.2.

    Differences:
        The authors' code averages over padding too, leaves dropout on, and runs the encoder again
        at every step.
    """
    items = [_without_labels(item) for item in batch.items]

    def read(place: int) -> Tensor:
        if kind == "embeddings":
            ids = torch.tensor([items[place].ids], device=backbone.device)
            return backbone.embed(ids).float().mean(dim=1)  # (1, embedding)
        _, spliced = _alone(backbone, items[place])
        states = _hidden(backbone, spliced, spliced.token_positions)
        return states.float().mean(dim=1)  # (1, hidden)

    keys = [(f"instance/{kind}", item.ids, item.segments) for item in items]
    return _find(backbone, keys, read, is_durable=kind == "states")


@torch.no_grad()
def vectors_of(
    backbone: Backbone,
    batch: Batch,
    embeddings: Tensor,
    kind: InstanceKind = "states",
    chosen: Tensor | None = None,
) -> Tensor:
    """Return what `instance_vectors` would be if inputs had other embeddings.

    They are read as a batch, and nothing is kept: such embeddings do not come twice.

    Args:
        backbone: the model, read without a prompt.
        batch: the batch.
        embeddings: of all inputs, or of those in `chosen`. Shape `(inputs, tokens, embedding)`.
        kind: what a vector is.
        chosen: which inputs of the batch; all when `None`. Shape `(inputs,)`.

    Returns:
        Vectors, float32. Shape `(inputs, hidden)`, or `(inputs, embedding)` for `embeddings`.
    """
    if chosen is None:
        chosen = torch.arange(len(batch.ids), device=batch.ids.device)
    mask = batch.attention_mask[chosen]
    lengths = mask.sum(dim=1) - batch.continuations[chosen]
    places = torch.arange(mask.shape[1], device=mask.device)
    own = ((places < lengths[:, None]) & mask.bool())[..., None]  # label tokens stand at the end
    states = embeddings
    if kind == "states":
        states = backbone.hidden(embeddings, mask, batch.segments[chosen])
    return (states.float() * own).sum(dim=1) / own.sum(dim=1)


def _origin(readout: Readout) -> tuple[str, int | None]:
    """Return a readout's class and registered version; without one, nothing tells it changed."""
    target = f"{type(readout).__module__}:{type(readout).__qualname__}"
    versions = [entry.version for entry in READOUTS if entry.target == target]
    return target, max(versions, default=None)


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
        starts=item.starts[:size],
        fields=item.fields[:size],
        num_continuation_tokens=0,
    )


def _find(
    backbone: Backbone,
    keys: Sequence[tuple[Any, ...]],
    read: Callable[[int], Tensor],
    *,
    is_durable: bool,
) -> Tensor:
    """Return what is read of each input. Shape `(items, width)`.

    Of a run's own copy, which is trained, nothing is kept: what it says changes with every update.
    """
    reader = find_reader() if backbone.is_frozen else PlainReader()
    found = reader.find(backbone, keys, read, is_durable=is_durable)
    with torch.no_grad():
        return torch.cat(found)


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
    (states,) = find_reader().read(backbone, [Request(None, spliced, places, needs_head=False)])
    return states
