"""One frozen forward for several runs: embed, place rows, read, score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.generation import check_written, generate
from softprompts.encoding.batch import Batch
from softprompts.prompts.choices import ChoiceLog
from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import Edges
from softprompts.prompts.prompt import Prompt, PromptOutput
from softprompts.prompts.splice import arrange, concatenate, join_memories
from softprompts.readouts.base import Readout
from softprompts.training.features import bare_summary, instance_vectors, is_bare
from softprompts.training.reader import Request, find_reader, stack


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
    summaries: dict[int, Tensor] = {}
    requests: dict[int, Request] = {}
    for number, part in enumerate(parts):
        is_alone = part.prompt.length == 0 and part.embeddings is None
        if is_alone and is_bare(backbone, part.prompt, part.readout):
            summaries[number] = bare_summary(backbone, part.readout, part.batch)
            continue
        output = emit(backbone, part)
        if output.has_choices:
            part.choices.add(output, part.batch.first_answers[part.batch.examples])
        requests[number] = ask(backbone, part, output)
    if requests:
        read = find_reader().read(backbone, list(requests.values()))
        for number, values in zip(requests, read, strict=True):
            summaries[number] = parts[number].readout.summary(values, parts[number].batch)
    scores = []
    for number, part in enumerate(parts):
        scores.append(part.readout.scores(summaries[number], part.batch))
    return scores


def emit(backbone: Backbone, part: Part) -> PromptOutput:
    """Return what a run's prompt emits for its batch."""
    instances = part.instances
    if instances is None and part.prompt.needs_instances:
        instances = instance_vectors(backbone, part.batch, part.prompt.instance)
    edges = Edges(part.batch.start, part.batch.end, part.batch.marks)
    output: PromptOutput = part.prompt(edges, instances, part.draws)
    return output


def embed(backbone: Backbone, prompt: Prompt, batch: Batch) -> Tensor:
    """Return a batch's tokens as they are embedded with a prompt."""
    embeddings = backbone.embed(batch.ids)
    if not prompt.changes_tokens:
        return embeddings
    places = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
    own = batch.attention_mask.sum(dim=1) - batch.continuations  # (inputs,)
    return prompt.embed(embeddings, batch.ids, places.where(places < own[:, None], -1))


def ask(backbone: Backbone, part: Part, output: PromptOutput) -> Request:
    """Put what a prompt emitted among the tokens of its run's batch, to be read."""
    batch, embeddings = part.batch, part.embeddings
    if embeddings is None:
        embeddings = embed(backbone, part.prompt, batch)
    tokens = (embeddings, batch.attention_mask, batch.segments)
    spliced = arrange(output, tokens, (batch.start, batch.end))
    places = part.readout.places(batch, spliced)
    is_known = part.embeddings is None and not part.prompt.changes_tokens
    return Request(output, spliced, places, part.readout.needs_head, batch, is_known)


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
                emitted.append(emit(backbone, replace(part, instances=None)))
        request = ask(backbone, replace(part, embeddings=embeddings), emitted[0])
        (values,) = find_reader().read(backbone, [request])
        return part.readout.scores(part.readout.summary(values, part.batch), part.batch)

    return scores


@torch.no_grad()
def write(backbone: Backbone, parts: Sequence[Part], **options: Any) -> Tensor:
    """Let a backbone write text after batches with their prompts in place.

    Args:
        backbone: a decoder or encoder-decoder with a language head.
        parts: prompts, each with inputs without label tokens.
        options: arguments of `generate` of transformers.

    Returns:
        Token ids of all inputs; see `softprompts.backbones.generation.generate`.

    Raises:
        BackboneError: if the backbone does not write text, or the context has no room for it.
    """
    outputs, pieces = [emit(backbone, part) for part in parts], []
    for part, output in zip(parts, outputs, strict=True):
        batch = part.batch
        tokens = (embed(backbone, part.prompt, batch), batch.attention_mask, batch.segments)
        pieces.append(arrange(output, tokens, (batch.start, batch.end)))
    spliced = concatenate(pieces)
    memory = join_memories(outputs, spliced)
    mask = stack([part.batch.attention_mask for part in parts])
    check_written(backbone, mask, spliced.lengths, memory, options)
    inputs = (spliced.embeddings, spliced.attention_mask, spliced.segment_ids)
    return generate(backbone, inputs, memory, **options)
