"""The loss of a run around where it stands: changes of its inputs, or of its prompt's rows.

Both are counted in relative units, so that runs can be compared: a change of inputs in
root-mean-squares of the embedding table, a change of a row in its own length.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import final

import torch
from torch import Generator, Tensor, nn

from softprompts.errors import PromptError
from softprompts.lab.analysis.curvature import block_norms
from softprompts.lab.analysis.subjects import Subject
from softprompts.prompts.pools.base import Pool
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.rows.base import Rows
from softprompts.regularizers.field_tokens import FieldTokens
from softprompts.training.forward import Part, score

Point = tuple[Tensor, ...]
"""A change, in the tensors that the surface says."""

_TOKENS_AT_ONCE = defaultdict(lambda: 65536, cpu=2048)
"""Token positions of one forward, by device type; one batch may take more by itself."""


class Surface(ABC):
    """The loss of a run as a function of a change; `origin` is where the run stands."""

    @abstractmethod
    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @property
    @abstractmethod
    def origin(self) -> Point:
        """The point of no change."""

    @property
    @abstractmethod
    def spans(self) -> Point:
        """How far radius 1 reaches, per block of each tensor. Shape `(blocks,)` each."""

    @abstractmethod
    def part(self, point: Point, number: int) -> Part:
        """Return what is read of a batch at a point."""

    @abstractmethod
    def gradient(self, point: Point) -> tuple[Tensor, Point]:
        """Return the losses at a point, float64, and the gradient of their mean.

        Losses are in the order of the batches. Shape `(examples,)`.
        """

    @cached_property
    def uphill(self) -> Point:
        """The gradient of the mean loss at the origin."""
        return self.gradient(self.origin)[1]

    @torch.no_grad()
    def losses(self, points: Sequence[Point]) -> Tensor:
        """Return the loss of each example at each point, several points to a forward.

        Float64, on the CPU, in the order of the batches. Shape `(points, examples)`.
        """
        found = []
        for number, batch in enumerate(self.subject.batches):
            size = max(1, _TOKENS_AT_ONCE[batch.ids.device.type] // batch.ids.numel())
            rows: list[Tensor] = []
            for first in range(0, len(points), size):
                rows += self.read([self.part(one, number) for one in points[first : first + size]])
            found.append(torch.stack(rows).double().cpu())
        return torch.cat(found, dim=1)

    def read(self, parts: Sequence[Part]) -> list[Tensor]:
        """Return the losses of what is read in one forward. Shape `(batch,)` each."""
        scores = score(self.subject.backbone, parts)
        pairs = zip(parts, scores, strict=True)
        return [part.readout.loss(values, part.batch) for part, values in pairs]


@final
class InputSurface(Surface):
    """The loss as a function of the input embeddings of field tokens.

    A point has a tensor per batch, with a change per example and field token, in units of the
    embedding table's root-mean-square. Shape `(batch, width, embedding)` each. Radius `r` allows an
    example a root-mean-square of `r`: a length of `r sqrt(n)`, with `n` its numbers. All inputs of
    an example are changed together; prompt rows, special tokens, template, masks and label words
    stay, as with perturbations.

    Reference:
        Chen et al. (2023), arXiv 2305.02423, for the space.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._fields = [FieldTokens.of(batch) for batch in subject.batches]
        self._embeddings = [subject.backbone.embed(batch.ids).detach() for batch in subject.batches]

    @cached_property
    def origin(self) -> Point:
        """No change. Shape `(batch, width, embedding)` each."""
        pairs = zip(self._fields, self._embeddings, strict=True)
        return tuple(
            torch.zeros(fields.num_examples, fields.width, own.shape[-1], device=own.device)
            for fields, own in pairs
        )

    @cached_property
    def spans(self) -> Point:
        """`sqrt(n)` of each example. Shape `(batch,)` each."""
        pairs = zip(self._fields, self._embeddings, strict=True)
        return tuple((fields.counts * own.shape[-1]).float().sqrt() for fields, own in pairs)

    def part(self, point: Point, number: int) -> Part:
        """Return a batch with changed embeddings."""
        return self._changed(point[number], number)

    def gradient(self, point: Point) -> tuple[Tensor, Point]:
        """Return losses and the gradient of their mean, for all batches."""
        found = [self.gradient_of(change, number) for number, change in enumerate(point)]
        size = self.subject.num_examples
        losses = torch.cat([losses for losses, _ in found])
        return losses.double().cpu(), tuple(gradient / size for _, gradient in found)

    def gradient_of(self, change: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Return the losses of one batch, and the gradient of each example's own.

        Losses have shape `(batch,)`, change and gradients `(batch, width, embedding)`.
        """
        part = self._changed(change, number)
        assert part.embeddings is not None
        leaf = part.embeddings.requires_grad_()
        losses = self.read([replace(part, embeddings=leaf)])[0]
        (gradient,) = torch.autograd.grad(losses.sum(), [leaf])
        return losses.detach(), self._fields[number].collect(gradient) * self.subject.unit

    @torch.no_grad()
    def losses_of(self, change: Tensor, number: int) -> Tensor:
        """Return the losses of one batch. Shape `(batch,)`."""
        return self.read([self._changed(change, number)])[0]

    def noise(self, draws: Generator) -> Point:
        """Return a point of radius 1 in a random direction for each example, drawn on the CPU."""
        found = []
        for fields, zero, spans in zip(self._fields, self.origin, self.spans, strict=True):
            drawn = torch.randn(zero.shape, generator=draws).to(zero) * fields.own[..., None]
            found.append(drawn / block_norms(drawn) * spans[:, None, None])
        return tuple(found)

    def _changed(self, change: Tensor, number: int) -> Part:
        own = self._embeddings[number]
        added = self._fields[number].spread(change.detach() * self.subject.unit)
        track, batch = self.subject.track, self.subject.batches[number]
        changed = (own.float() + added).to(own.dtype)
        return Part(track.prompt, track.readout, batch, embeddings=changed)


@final
class PromptSurface(Surface):
    """The mean loss as a function of the prompt's rows, each in units of its own length.

    Rows are those that the backbone reads: after the network that trains them, before a pool mixes
    its sets; in every layer, one row is all keys and values of its number. Whatever else is trained
    stays: selectors, head, networks. So every rows kind is seen in one space. A point is one tensor
    `u`, and row `i` is `P_i + |P_i| u_i`. Shape `(pool * length, width)`.

    Raises:
        PromptError: if the run has no prompt rows.

    Reference:
        Li et al. (2018), arXiv 1712.09913, section 4, whose filters are rows here; Kwon et al.
        (2021), arXiv 2102.11600, for radii that do not depend on scale.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        prompt = subject.track.prompt
        if not prompt.length:
            raise PromptError(
                "a run must have prompt rows to move them, but the prompt of method "
                f"{subject.about['method']} has length {prompt.length}."
            )
        sets = [rows(None).detach() for rows in outer_rows(prompt.pool)]
        self._shape = (len(sets), *sets[0].shape)
        self.rows = torch.cat(sets)  # (pool * length, width)
        self.norms = torch.linalg.vector_norm(self.rows, dim=1)  # (pool * length,)

    @cached_property
    def origin(self) -> Point:
        """No change. Shape `(pool * length, width)`."""
        return (torch.zeros_like(self.rows),)

    @cached_property
    def spans(self) -> Point:
        """1 for each row. Shape `(pool * length,)`."""
        return (torch.ones_like(self.norms),)

    def part(self, point: Point, number: int) -> Part:
        """Return a batch with changed rows."""
        values = self.rows + self.norms[:, None] * point[0]
        prompt = with_rows(self.subject.track.prompt, values.view(self._shape))
        return Part(prompt, self.subject.track.readout, self.subject.batches[number])

    def gradient(self, point: Point) -> tuple[Tensor, Point]:
        """Return losses and the gradient of their mean."""
        leaf = point[0].detach().clone().requires_grad_()
        total, found = torch.zeros_like(leaf), []
        for number in range(len(self.subject.batches)):
            losses = self.read([self.part((leaf,), number)])[0]
            total += torch.autograd.grad(losses.sum(), [leaf])[0]
            found.append(losses.detach())
        return torch.cat(found).double().cpu(), (total / self.subject.num_examples,)


@final
class GivenRows(Rows):
    """Rows that are given, whatever trained them. Shape `(length, width)`."""

    def __init__(self, values: Tensor) -> None:
        nn.Module.__init__(self)
        self.values = values

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return the rows. Shape `(length, width)`."""
        return self.values


def outer_rows(module: nn.Module) -> list[Rows]:
    """Return the sets of rows of a pool, in order, without the rows that they are made of."""
    found: list[Rows] = []
    for child in module.children():
        found += [child] if isinstance(child, Rows) else outer_rows(child)
    return found


def with_rows(prompt: Prompt, sets: Sequence[Tensor] | Tensor) -> Prompt:
    """Return a prompt with other rows and all else shared. Shape of each set `(length, width)`."""
    pool = _with_rows(prompt.pool, iter(sets))
    assert isinstance(pool, Pool)
    return Prompt(
        pool, prompt.position, prompt.active_length, prompt.depth, instance=prompt.instance
    )


def _with_rows(module: nn.Module, sets: Iterator[Tensor]) -> nn.Module:
    clone = copy.copy(module)
    clone._modules = {
        name: GivenRows(next(sets)) if isinstance(child, Rows) else _with_rows(child, sets)
        for name, child in module.named_children()
    }
    return clone
