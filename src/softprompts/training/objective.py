"""The objective of an update: the loss, and what regularizers add to it.

Micro-batch `k` of all runs of a pack is read in one forward, perturbed copies with it where they
do not need the clean one's gradient. What a regularizer climbs to is found in forwards of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

from softprompts.backbones.backbone import Backbone
from softprompts.errors import PromptError
from softprompts.prompts.choices import ChoiceLog
from softprompts.regularizers.base import Inputs, Penalty, Perturbed, Regularizer, Seen
from softprompts.regularizers.field_tokens import FieldTokens
from softprompts.training.features import instance_vectors, vectors_of
from softprompts.training.forward import Part, embed, held, score

Note = Callable[[int, Penalty], None]
"""Takes note of what a regularizer, by its number, said of a micro-batch."""


@final
@dataclass(frozen=True, eq=False)
class Share:
    """One run's micro-batch, with what regularizes it.

    Attributes:
        part: the micro-batch.
        weight: of one example in the update's loss.
        regularizers: those that are not idle, by their number in the run's list, with the factor
            on each one's penalty.
        note: takes note of penalties.
    """

    part: Part
    weight: float
    regularizers: Sequence[tuple[int, Regularizer, float]] = ()
    note: Note = lambda number, penalty: None


@dataclass(eq=False)
class _Reading:
    """A share that is being read."""

    share: Share
    part: Part
    inputs: dict[int, Inputs] = field(default_factory=dict)
    copies: dict[int, list[Perturbed]] = field(default_factory=dict)
    probe: Tensor | None = None


def accumulate(backbone: Backbone, shares: Sequence[Share]) -> list[float]:
    """Add the gradient of several runs' micro-batches, read in one forward.

    Args:
        backbone: the frozen model that all runs share.
        shares: the micro-batches.

    Returns:
        Each run's loss, without penalties, times its weight.
    """
    readings, clean, losses = [], [], []
    is_first = has_more = False  # than the loss of the clean micro-batches
    for share in shares:
        reading = _prepare(backbone, share) if share.regularizers else _Reading(share, share.part)
        readings.append(reading)
        clean.append(reading.part)
        has_more = has_more or bool(share.regularizers)
        is_first = is_first or reading.probe is not None
    beside = _copies(backbone, readings) if has_more and not is_first else []
    scores = score(backbone, [*clean, *beside])
    for reading, values in zip(readings, scores, strict=False):  # copies come behind
        part = reading.part
        losses.append(part.readout.loss(values, part.batch).sum() * reading.share.weight)
    total = sum(losses[1:], losses[0])
    if is_first:
        graphs = [one for share in shares for _, one, _ in share.regularizers]
        is_kept = any(one.needs_clean_graph for one in graphs)
        torch.autograd.backward(total, retain_graph=is_kept)
        total = total.detach()
        beside = _copies(backbone, readings)
        scores += score(backbone, beside) if beside else []
    if has_more:
        copied = iter(scores[len(clean) :])
        for reading, values in zip(readings, scores, strict=False):
            for penalty in _penalties(backbone, reading, values, copied):
                total = total + penalty
    if total.requires_grad:
        torch.autograd.backward(total)
    return [float(loss.detach()) for loss in losses]


def _prepare(backbone: Backbone, share: Share) -> _Reading:
    """Return a share that is ready to have the gradient taken that its regularizers ask for."""
    part, reading = share.part, _Reading(share, share.part)
    if any(one.needs_gradient for _, one, _ in share.regularizers):
        embeddings = embed(backbone, part.prompt, part.batch)
        reading.probe = torch.zeros_like(embeddings, requires_grad=True)
        reading.part = replace(part, embeddings=embeddings + reading.probe)
    return reading


def _copies(backbone: Backbone, readings: Sequence[_Reading]) -> list[Part]:
    """Return the perturbed copies of all shares that need no clean forward, to be read."""
    found = []
    for reading in readings:
        part = reading.share.part
        if not reading.share.regularizers:
            continue
        shared = _inputs(backbone, part)
        for number, one, _ in reading.share.regularizers:
            inputs = replace(shared, number=number)
            reading.inputs[number], reading.copies[number] = inputs, one.copies(inputs)
            for copy in reading.copies[number]:
                found.append(_perturbed(backbone, part, one, copy.embeddings))
    return found


def _perturbed(backbone: Backbone, part: Part, one: Regularizer, embeddings: Tensor) -> Part:
    """Return a part that reads perturbed inputs as a regularizer wants them read."""
    instances = None
    if one.has_own_instances:
        if not part.prompt.needs_instances:
            raise PromptError(
                "`instances` must be clean where nothing looks at instance vectors, but is "
                "perturbed."
            )
        instances = vectors_of(backbone, part.batch, embeddings.detach(), part.prompt.instance)
    return replace(part, embeddings=embeddings, instances=instances, choices=ChoiceLog())


def _inputs(backbone: Backbone, part: Part) -> Inputs:
    """Return a micro-batch as regularizers see it before it is read."""
    assert part.draws is not None
    score_held = held(backbone, part)

    def held_loss(embeddings: Tensor) -> Tensor:
        return part.readout.loss(score_held(embeddings), part.batch)

    def similarity(embeddings: Tensor, chosen: Tensor) -> Tensor:
        clean = instance_vectors(backbone, part.batch)[chosen]
        now = vectors_of(backbone, part.batch, embeddings, chosen=chosen)
        return functional.cosine_similarity(clean, now, dim=1)

    def read(ids: Tensor) -> Tensor:
        return embed(backbone, part.prompt, replace(part.batch, ids=ids))

    about: dict[str, Any] = {"held_loss": held_loss, "embed": read, "similarity": similarity}
    fields = FieldTokens.of(part.batch)
    return Inputs(part.batch, read(part.batch.ids), fields, part.draws, **about)


def _penalties(
    backbone: Backbone, reading: _Reading, scores: Tensor, copied: Iterator[Tensor]
) -> list[Tensor]:
    """Return what each regularizer adds to the loss of a share."""
    share, found = reading.share, []
    for number, one, factor in share.regularizers:
        copies = [(copy, next(copied)) for copy in reading.copies[number]]
        penalty = one.penalty(_seen(backbone, reading, scores, number, one, copies))
        _check_penalty(one, penalty, share.part.batch.size)
        share.note(number, penalty)
        found.append(penalty.values.sum() * (share.weight * factor))
    return found


def _check_penalty(one: Regularizer, penalty: object, size: int) -> None:
    """Refuse what a regularizer says if it is no penalty of each example."""
    if isinstance(penalty, Penalty) and penalty.values.shape == (size,):
        return
    said = tuple(penalty.values.shape) if isinstance(penalty, Penalty) else repr(penalty)
    raise PromptError(
        f"the penalty of {type(one).__name__} must be a Penalty with values of shape ({size},), "
        f"but is {said}."
    )


def _seen(
    backbone: Backbone,
    reading: _Reading,
    scores: Tensor,
    number: int,
    one: Regularizer,
    copies: list[tuple[Perturbed, Tensor]],
) -> Seen:
    """Return what a regularizer sees of a share that was read."""
    part = reading.share.part

    def loss(scores: Tensor) -> Tensor:
        return part.readout.loss(scores, part.batch)

    def forward(embeddings: Tensor) -> Tensor:
        return score(backbone, [_perturbed(backbone, part, one, embeddings)])[0]

    def rows() -> Tensor:
        vectors = None
        if part.prompt.needs_instances:
            vectors = instance_vectors(backbone, part.batch, part.prompt.instance)
        rows: Tensor = part.prompt.pool(len(part.batch.ids), vectors, part.draws)[0]
        return rows

    gradient = None
    if one.needs_gradient and reading.probe is not None and reading.probe.grad is not None:
        own = reading.inputs[number].fields.collect(reading.probe.grad)
        gradient = own / reading.share.weight
    held = scores if one.needs_clean_graph else scores.detach()
    return Seen(reading.inputs[number], held, loss, forward, rows, copies, gradient)
