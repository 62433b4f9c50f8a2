"""One frozen forward for several runs: prompts, splice, backbone, readouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone, DecoderInputs
from softprompts.encoding.batch import Batch
from softprompts.prompts.choices import ChoiceLog
from softprompts.prompts.draws import Draws
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.splice import Spliced, choose, concatenate, splice
from softprompts.readouts.base import Readout
from softprompts.training.frozen import bare_summary, instance_vectors, is_bare


@dataclass(frozen=True, eq=False)
class Part:
    """One run's share of a forward.

    Attributes:
        prompt: the run's prompt.
        readout: the run's readout.
        batch: the run's examples, on the backbone's device.
        draws: noise, temperature and dropout; `None` means evaluation.
        choices: takes note of what the prompt chose.
    """

    prompt: Prompt
    readout: Readout
    batch: Batch
    draws: Draws | None = None
    choices: ChoiceLog = field(default_factory=ChoiceLog)


def score(backbone: Backbone, parts: Sequence[Part]) -> list[Tensor]:
    """Score the batches of several runs through one frozen forward.

    Every run's examples are rows of one batch, and rows of a batch do not see each other, so the
    scores and gradients of a run are those it would have alone.

    Args:
        backbone: the frozen model that all runs share.
        parts: the runs; their readouts must all need a language head, or none.

    Returns:
        Scores per run, float32. Shape `(batch, labels)` each.
    """
    bare = [part for part in parts if is_bare(part.prompt, part.readout)]
    read = iter(_summaries(backbone, [part for part in parts if part not in bare]))
    summaries = [
        bare_summary(backbone, part.readout, part.batch) if part in bare else next(read)
        for part in parts
    ]
    return [
        part.readout.scores(summary, part.batch)
        for part, summary in zip(parts, summaries, strict=True)
    ]


def _summaries(backbone: Backbone, parts: Sequence[Part]) -> list[Tensor]:
    """Read several runs' batches through one forward; return each run's share, summarized."""
    if not parts:
        return []
    spliced = [_splice(backbone, part) for part in parts]
    places = [p.readout.places(p.batch, s) for p, s in zip(parts, spliced, strict=True)]
    values = _read(backbone, parts, concatenate(spliced), _stack(places))
    shares = torch.split(values, [len(place) for place in places])
    return [
        part.readout.summary(share[:, : place.shape[1]], part.batch)
        for part, share, place in zip(parts, shares, places, strict=True)
    ]


def _splice(backbone: Backbone, part: Part) -> Spliced:
    batch, prompt = part.batch, part.prompt
    instances = instance_vectors(backbone, batch) if prompt.needs_instances else None
    output = prompt(batch.start, batch.end, instances, part.draws)
    part.choices.add(output, batch.first_answers[batch.examples])
    tokens, mask = backbone.embed(batch.ids), batch.attention_mask
    spliced = splice(tokens, mask, batch.segments, output.rows, output.anchors)
    weights = output.placement.weights
    if weights is not None and weights.requires_grad:
        edges = (batch.start, batch.end)
        spliced = choose(spliced, weights, tokens, mask, output.rows, edges)
    return spliced


def _read(backbone: Backbone, parts: Sequence[Part], joint: Spliced, places: Tensor) -> Tensor:
    """Run the backbone and return its output at `places`. Shape `(reads, slots, width)`."""
    inputs = (joint.embeddings, joint.attention_mask, joint.segment_ids)
    if not parts[0].readout.needs_head:
        return backbone.hidden(*inputs, gather=places)
    decoder = None
    if backbone.family == "encoder-decoder":
        decoder = _decoder_inputs(backbone, parts)
    return backbone.logits(*inputs, gather=places, decoder=decoder)


def _decoder_inputs(backbone: Backbone, parts: Sequence[Part]) -> DecoderInputs:
    sources, offset = [], 0
    for part in parts:
        sources.append(part.batch.targets.inputs + offset)
        offset += part.batch.ids.shape[0]
    labels = _stack([part.batch.targets.tokens for part in parts])
    mask = _stack([part.batch.targets.mask.long() for part in parts])
    return DecoderInputs(backbone.shift_right(labels), torch.cat(sources), mask)


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first axis, the second padded with 0 to the widest."""
    width = max(tensor.shape[1] for tensor in tensors)
    padded = [torch.cat([t, t.new_zeros(t.shape[0], width - t.shape[1])], dim=1) for t in tensors]
    return padded[0] if len(padded) == 1 else torch.cat(padded)
