"""Regularizers: penalties that are added to the loss of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import Batch
from softprompts.prompts.draws import Draws
from softprompts.regularizers.field_tokens import FieldTokens


def _unread(*given: Tensor) -> Tensor:
    raise NotImplementedError("inputs that nothing reads must not be asked how they read.")


@dataclass(frozen=True, eq=False)
class Inputs:
    """A micro-batch before it is read.

    Attributes:
        batch: the examples.
        embeddings: their input embeddings. Shape `(inputs, tokens, embedding)`.
        fields: the tokens that may be touched.
        draws: where random numbers come from.
        number: place of the regularizer in its run's list, so that two of a kind draw apart.
        held_loss: from input embeddings to the readout's loss per example, with the prompt held:
            it is found once for all calls, from the clean input, and has no gradient. Shape
            `(inputs, tokens, embedding)` to `(batch,)`.
        embed: from token ids to how the prompt lets them be read. Shape `(inputs, tokens)` to
            `(inputs, tokens, embedding)`.
        similarity: from input embeddings of some inputs, and which inputs they are, to the cosine
            between the mean-pooled states of the bare backbone before and after, without gradient.
            Shapes `(inputs, tokens, embedding)` and `(inputs,)` to `(inputs,)`.
    """

    batch: Batch
    embeddings: Tensor
    fields: FieldTokens
    draws: Draws
    number: int = 0
    held_loss: Callable[[Tensor], Tensor] = _unread
    embed: Callable[[Tensor], Tensor] = _unread
    similarity: Callable[[Tensor, Tensor], Tensor] = _unread


@dataclass(frozen=True, eq=False)
class Perturbed:
    """A micro-batch after a perturbation.

    Attributes:
        embeddings: input embeddings. Shape `(inputs, tokens, embedding)`.
        changed: which examples differ from what they were. Shape `(batch,)`.
        about: numbers per example to log, such as words changed. Shape `(batch,)` each.
        wording: from the number of an example to its words before and after, as texts; `None`
            where no words were replaced.
    """

    embeddings: Tensor
    changed: Tensor
    about: Mapping[str, Tensor] = field(default_factory=dict)
    wording: Callable[[int], tuple[str, str]] | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """A micro-batch after the clean forward.

    Attributes:
        inputs: the micro-batch.
        scores: clean scores; with gradient only where the regularizer asks for it. Shape
            `(batch, labels)`.
        loss: from scores to the readout's loss per example.
        forward: from input embeddings to scores, with the same prompt, readout and draws. Shape
            `(inputs, tokens, embedding)` to `(batch, labels)`.
        rows: returns the prompt's rows per input, with gradient. Shape `(inputs, length, width)`.
        copies: what `Regularizer.copies` returned, each with its scores.
        gradient: of the clean loss with respect to each example's field tokens, where the
            regularizer asks for it. Shape `(batch, width, embedding)`.
    """

    inputs: Inputs
    scores: Tensor
    loss: Callable[[Tensor], Tensor]
    forward: Callable[[Tensor], Tensor]
    rows: Callable[[], Tensor]
    copies: Sequence[tuple[Perturbed, Tensor]] = ()
    gradient: Tensor | None = None


@final
@dataclass(frozen=True)
class Illustration:
    """An example whose words were replaced, and what that did.

    It has the words, those that were replaced in brackets, the columns that are right, and losses
    and predictions before and after.
    """

    before: str
    after: str
    answers: tuple[int, ...]
    losses: tuple[float, float]
    predictions: tuple[int, int]


def _show_nothing(count: int) -> list[Illustration]:
    return []


@dataclass(frozen=True, eq=False)
class Penalty:
    """What a regularizer says of a micro-batch.

    Attributes:
        values: the penalty of each example. Shape `(batch,)`.
        about: numbers per example to log. Shape `(batch,)` each.
        illustrate: returns up to so many examples whose words were replaced.
    """

    values: Tensor
    about: Mapping[str, Tensor] = field(default_factory=dict)
    illustrate: Callable[[int], Sequence[Illustration]] = _show_nothing


class Regularizer(ABC):
    """A penalty that is added to the loss: `loss + weight * penalty`, averaged over examples.

    Args:
        backbone: what the run reads through.
        weight: factor on the penalty.
        warmup_steps: updates over which the factor rises linearly to `weight`.

    Attributes:
        needs_gradient: whether `Seen.gradient` is wanted.
        needs_clean_graph: whether the penalty's gradient passes through the clean scores.
        needs_rows: whether it looks at the rows of a prompt.
        needs_embeddings: whether these rows must be embeddings, as those in every layer are not.
        has_own_instances: whether instance vectors of perturbed inputs are those of the inputs as
            they are perturbed, instead of those of the clean ones.
        num_shared_copies: how many copies of each input are read with the clean one, and nowhere
            else.
    """

    needs_gradient: bool = False
    needs_clean_graph: bool = False
    has_own_instances: bool = False
    needs_rows: bool = False
    needs_embeddings: bool = False
    num_shared_copies: int = 0

    @abstractmethod
    def __init__(
        self, backbone: Backbone, *, weight: float = 1.0, warmup_steps: int = 0, **options: Any
    ) -> None:
        self.weight, self.warmup_steps = weight, warmup_steps

    @property
    def is_idle(self) -> bool:
        """Whether it can add nothing, so that it is left out and costs nothing."""
        return self.weight == 0

    def factor(self, step: int) -> float:
        """Return the factor on the penalty after `step` updates."""
        if not self.warmup_steps:
            return self.weight
        return self.weight * min(1.0, (step + 1) / self.warmup_steps)

    def copies(self, inputs: Inputs) -> list[Perturbed]:
        """Return perturbed copies that can share the forward of the clean inputs; none here."""
        return []

    @abstractmethod
    def penalty(self, seen: Seen) -> Penalty:
        """Return the penalty of each example, with gradient."""


def per_example(seen: Seen, values: Tensor) -> Tensor:
    """Return the mean over the inputs of each example.

    Shapes `(inputs,)` and `(batch,)`.
    """
    batch = seen.inputs.batch
    zeros = values.new_zeros(batch.size)
    counts = zeros.index_add(0, batch.examples, torch.ones_like(values))
    return zeros.index_add(0, batch.examples, values) / counts
