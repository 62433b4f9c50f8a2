"""One frozen forward for several runs: prompts, splice, backbone, readouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.generation import check_written, generate
from softprompts.backbones.memory import Memory
from softprompts.backbones.passing import DecoderInputs
from softprompts.encoding.batch import Batch
from softprompts.prompts.arranging import arrange, join_memories
from softprompts.prompts.choices import ChoiceLog
from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import Edges
from softprompts.prompts.prompt import Prompt, PromptOutput
from softprompts.prompts.splice import Spliced, concatenate
from softprompts.readouts.base import Readout
from softprompts.training.frozen import bare_summary, instance_vectors, is_bare
from softprompts.training.input_keys import Ahead, joint_memory, read_ahead
from softprompts.training.lower_states import Below, joint_below, read_below


@dataclass(frozen=True, eq=False)
class Part:
    """One run's share of a forward.

    Attributes:
        prompt: the run's prompt.
        readout: the run's readout.
        batch: the run's examples, on the backbone's device.
        draws: noise, temperature and dropout; `None` means evaluation.
        choices: takes note of what the prompt chose.
        embeddings: input embeddings to read in place of the batch's own, as a perturbation makes
            them; what a prompt looks at, and padding, are still those of the batch. Shape
            `(inputs, tokens, embedding)`.
        instances: instance vectors to look at in place of the batch's own. Shape
            `(inputs, width)`.
    """

    prompt: Prompt
    readout: Readout
    batch: Batch
    draws: Draws | None = None
    choices: ChoiceLog = field(default_factory=ChoiceLog)
    embeddings: Tensor | None = None
    instances: Tensor | None = None


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
    bare = [
        part
        for part in parts
        if part.embeddings is None and is_bare(backbone, part.prompt, part.readout)
    ]
    read = iter(_summaries(backbone, [part for part in parts if part not in bare]))
    summaries = [
        bare_summary(backbone, part.readout, part.batch) if part in bare else next(read)
        for part in parts
    ]
    return [
        part.readout.scores(summary, part.batch)
        for part, summary in zip(parts, summaries, strict=True)
    ]


def held(backbone: Backbone, part: Part) -> Callable[[Tensor], Tensor]:
    """Return a function that scores a batch at many inputs with the same prompt.

    What the prompt emits is found at the first call and has no gradient, so a call costs the
    forward of the backbone and no more.

    Args:
        backbone: the frozen model.
        part: the run and its batch.

    Returns:
        From input embeddings to scores, float32. Shape `(inputs, tokens, embedding)` to
        `(batch, labels)`.
    """
    emitted: list[PromptOutput] = []

    def scores(embeddings: Tensor) -> Tensor:
        if not emitted:
            with torch.no_grad():
                emitted.append(_emit(backbone, part.prompt, part.batch, part.draws))
        (values,) = _read_all(backbone, [replace(part, embeddings=embeddings)], emitted)
        return part.readout.scores(values, part.batch)

    return scores


@torch.no_grad()
def write(backbone: Backbone, prompt: Prompt, batch: Batch, **options: Any) -> Tensor:
    """Let a backbone write text after a batch with a prompt in place.

    Args:
        backbone: a decoder or encoder-decoder with a language head.
        prompt: the prompt.
        batch: inputs without label tokens, on the backbone's device.
        options: arguments of `generate` of transformers.

    Returns:
        Token ids; see `softprompts.backbones.generation.generate`.

    Raises:
        BackboneError: if the backbone does not write text, or the context has no room for it.
    """
    output = _emit(backbone, prompt, batch)
    spliced = _splice(backbone, batch, output)
    memory = join_memories([output], spliced)
    check_written(backbone, batch.attention_mask, (spliced.lengths, memory), options)
    inputs = (spliced.embeddings, spliced.attention_mask, spliced.segment_ids)
    return generate(backbone, inputs, memory, **options)


@dataclass(frozen=True, eq=False)
class _View:
    """What the backbone reads of a part.

    Attributes:
        part: the part.
        output: what its prompt emitted.
        spliced: what is to be read.
        places: where the output is read. Shape `(reads, slots)`.
        known: what is known of its first tokens or lowest layers; `None` where all is read.
    """

    part: Part
    output: PromptOutput
    spliced: Spliced
    places: Tensor
    known: Ahead | Below | None = None

    @property
    def kind(self) -> tuple[type, int]:
        """What it may share a forward with: its like."""
        num_layers = self.known.num_layers if isinstance(self.known, Below) else 0
        return type(self.known), num_layers


def _summaries(backbone: Backbone, parts: Sequence[Part]) -> list[Tensor]:
    """Read several runs' batches; return each run's share, summarized."""
    outputs = [
        _emit(backbone, part.prompt, part.batch, part.draws, part.instances) for part in parts
    ]
    for part, output in zip(parts, outputs, strict=True):
        part.choices.add(output, part.batch.first_answers[part.batch.examples])
    return _read_all(backbone, parts, outputs)


def _read_all(
    backbone: Backbone, parts: Sequence[Part], outputs: Sequence[PromptOutput]
) -> list[Tensor]:
    """Read several runs' batches with what their prompts emitted; return each one's summary.

    They are read through one forward, or through one for each kind of what is known of them.
    """
    views = [_view(backbone, *given) for given in zip(parts, outputs, strict=True)]
    found: dict[int, Tensor] = {}
    for kind in dict.fromkeys(view.kind for view in views):
        group = [number for number, view in enumerate(views) if view.kind == kind]
        values = _read_views(backbone, [views[number] for number in group])
        found |= dict(zip(group, values, strict=True))
    return [
        view.part.readout.summary(found[number], view.part.batch)
        for number, view in enumerate(views)
    ]


def _view(backbone: Backbone, part: Part, output: PromptOutput) -> _View:
    """Return what the backbone is to read of a part."""
    spliced = _splice(backbone, part.batch, output, part.embeddings)
    places = part.readout.places(part.batch, spliced)
    if part.embeddings is not None:
        return _View(part, output, spliced, places)
    ahead = read_ahead(backbone, part.batch, output, (spliced, places))
    if ahead is None:
        below = read_below(backbone, part.batch, output)
        return _View(part, output, spliced, places, below)
    rest, places = spliced.behind(ahead.lead), places - ahead.lead[:, None]
    return _View(part, output, rest, places, ahead)


def _read_views(backbone: Backbone, views: Sequence[_View]) -> list[Tensor]:
    """Read views of one kind through one forward; return each one's output at its places."""
    joint = concatenate([view.spliced for view in views])
    ahead = [view.known for view in views if isinstance(view.known, Ahead)]
    below = [view.known for view in views if isinstance(view.known, Below)]
    if ahead:
        memory: Memory | None = replace(joint_memory(ahead), gates=joint.gates, gated=joint.gated)
    else:
        memory = join_memories([view.output for view in views], joint)
    if below and memory is not None:
        memory = replace(memory, below=joint_below(below, joint.embeddings.shape[1]))
    places = [view.places for view in views]
    parts = [view.part for view in views]
    values = _read(backbone, parts, (joint, memory), _stack(places))
    shares = torch.split(values, [len(place) for place in places])
    return [share[:, : place.shape[1]] for share, place in zip(shares, places, strict=True)]


def _emit(
    backbone: Backbone,
    prompt: Prompt,
    batch: Batch,
    draws: Draws | None = None,
    instances: Tensor | None = None,
) -> PromptOutput:
    if instances is None and prompt.needs_instances:
        instances = instance_vectors(backbone, batch, prompt.instance)
    edges = Edges(batch.start, batch.end, batch.marks)
    output: PromptOutput = prompt(edges, instances, draws)
    return output


def _splice(
    backbone: Backbone, batch: Batch, output: PromptOutput, embeddings: Tensor | None = None
) -> Spliced:
    if embeddings is None:
        embeddings = backbone.embed(batch.ids)
    tokens = (embeddings, batch.attention_mask, batch.segments)
    return arrange(output, tokens, (batch.start, batch.end))


def _read(
    backbone: Backbone, parts: Sequence[Part], given: tuple[Spliced, Memory | None], places: Tensor
) -> Tensor:
    """Run the backbone and return its output at `places`. Shape `(reads, slots, width)`."""
    joint, memory = given
    inputs = (joint.embeddings, joint.attention_mask, joint.segment_ids)
    if not parts[0].readout.needs_head:
        return backbone.hidden(*inputs, gather=places, memory=memory, wanted=joint.is_row)
    decoder = None
    if backbone.family == "encoder-decoder":
        decoder = _decoder_inputs(backbone, parts)
    return backbone.logits(
        *inputs, gather=places, decoder=decoder, memory=memory, wanted=joint.is_row
    )


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
