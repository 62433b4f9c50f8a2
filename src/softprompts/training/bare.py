"""Runs without a prompt: what the frozen backbone says of an input never changes.

Pooled states of a head-only run depend on the input alone, so each is computed once per process
and shared by all seeds. Every input is read by itself, not in a batch: floating-point sums differ
with the padding beside them, and a run that is resumed must see the numbers it saw before.
"""

from __future__ import annotations

from collections import OrderedDict
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import Batch, collate
from softprompts.encoding.inputs import EncodedExample, EncodedInput
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.splice import splice
from softprompts.readouts.base import Readout

_MAX_ENTRIES = 65536
_Key = tuple[str, tuple[int, ...], tuple[int, ...]]
_KEPT: WeakKeyDictionary[Backbone, OrderedDict[_Key, Tensor]] = WeakKeyDictionary()


def is_bare(prompt: Prompt, readout: Readout) -> bool:
    """Return whether scores depend on the input and the readout's own head alone."""
    return not readout.needs_head and prompt.length == 0


@torch.no_grad()
def bare_summary(backbone: Backbone, readout: Readout, batch: Batch) -> Tensor:
    """Return the readout's summary of a batch that no prompt takes part in.

    Args:
        backbone: the frozen model.
        readout: a readout of hidden states.
        batch: the batch.

    Returns:
        What `readout.summary` returns, from memory where the input was read before.
    """
    kept = _KEPT.setdefault(backbone, OrderedDict())
    summaries = []
    for item in batch.items:
        key = (readout.summary_name, item.ids, item.segments)
        if key not in kept:
            kept[key] = _read(backbone, readout, item)
            if len(kept) > _MAX_ENTRIES:
                kept.popitem(last=False)
        summaries.append(kept[key])
    return torch.cat(summaries)


def _read(backbone: Backbone, readout: Readout, item: EncodedInput) -> Tensor:
    """Return the summary of one input. Shape `(1, hidden)`."""
    example = EncodedExample((item,), max(1, item.column + 1), (), False)
    batch = collate([example], backbone.tokenizer.pad_token_id).to(backbone.device)
    empty = torch.zeros(1, 0, backbone.embedding_size, device=backbone.device)
    anchors = torch.zeros(1, 0, dtype=torch.long, device=backbone.device)
    embeddings = backbone.embed(batch.ids)
    spliced = splice(embeddings, batch.attention_mask, batch.segments, empty, anchors)
    places = readout.places(batch, spliced)
    inputs = (spliced.embeddings, spliced.attention_mask, spliced.segment_ids)
    return readout.summary(backbone.hidden(*inputs, gather=places), batch)
