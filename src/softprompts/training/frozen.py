"""What the frozen backbone says of an input by itself never changes: it is read once.

Two things need it: runs without a prompt, whose pooled states depend on the input alone, and
prompts that look at instance vectors. Both are read once, shared by all runs of a process, and kept
on disk for later processes. Every input is read by itself, not in a batch: floating-point sums
differ with the padding beside them, and a run that is resumed must see the numbers it saw before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
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
from softprompts.training.readings import all_readings, readings_of


def is_bare(backbone: Backbone, prompt: Prompt, readout: Readout) -> bool:
    """Return whether scores depend on the input and the readout's own head alone."""
    return backbone.is_frozen and not readout.needs_head and prompt.length == 0


def bare_summary(backbone: Backbone, readout: Readout, batch: Batch) -> Tensor:
    """Return the readout's summary of a batch that no prompt takes part in.

    Args:
        backbone: the frozen model.
        readout: a readout of hidden states.
        batch: the batch.

    Returns:
        What `readout.summary` returns, kept where the input was read before.
    """

    def read(item: EncodedInput) -> Tensor:
        one, spliced = _alone(backbone, item)
        places = readout.places(one, spliced)
        return readout.summary(_hidden(backbone, spliced, places), one)

    def key(item: EncodedInput) -> tuple[Any, ...]:
        edges = (item.start, item.end, item.num_continuation_tokens)
        return (kind, item.ids, item.segments, item.roles, item.slots, edges)

    origin, version = _origin(readout)
    kind = f"summary/{readout.summary_name}/{origin}/{version}"
    return _remember(backbone, batch.items, key, read, is_durable=version is not None)


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

    def read_states(item: EncodedInput) -> Tensor:
        _, spliced = _alone(backbone, item)
        states = _hidden(backbone, spliced, spliced.token_positions)
        return states.float().mean(dim=1)  # (1, hidden)

    def read_embeddings(item: EncodedInput) -> Tensor:
        ids = torch.tensor([item.ids], device=backbone.device)
        return backbone.embed(ids).float().mean(dim=1)  # (1, embedding)

    def key(item: EncodedInput) -> tuple[Any, ...]:
        return (f"instance/{kind}", item.ids, item.segments)

    items = [_without_labels(item) for item in batch.items]
    read = read_states if kind == "states" else read_embeddings
    return _remember(backbone, items, key, read, is_durable=kind == "states")


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


def save_readings(backbone: Backbone) -> None:
    """Make what was read of inputs durable; does nothing where all of it is.

    Args:
        backbone: whose readings; trouble with the disk is a warning, never an error.
    """
    for readings in all_readings(backbone):
        readings.save()


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


def _remember(
    backbone: Backbone,
    items: Sequence[EncodedInput],
    key: Callable[[EncodedInput], tuple[Any, ...]],
    read: Callable[[EncodedInput], Tensor],
    *,
    is_durable: bool,
) -> Tensor:
    """Return `read` of each item, read once per key. Shape `(items, width)`.

    Of a run's own copy, which is trained, nothing is kept: what it says changes with every update.
    """
    if not backbone.is_frozen:
        with torch.no_grad():
            return torch.cat([read(item) for item in items])
    readings = readings_of(backbone)
    values = []
    for item in items:
        name = key(item)
        value = readings.find(name, is_durable)
        if value is None:
            value = readings.keep(name, partial(read, item), is_durable)
        values.append(value)
    with torch.no_grad():
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
