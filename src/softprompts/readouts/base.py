"""Readouts: from a backbone's output to label scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from softprompts.encoding.batch import Batch
from softprompts.encoding.inputs import EncodedExample
from softprompts.encoding.template import Template, parse_template
from softprompts.encoding.tokenization import Tokenization
from softprompts.errors import DataError, PromptError
from softprompts.examples import Example, TaskFormat
from softprompts.prompts.splice import Spliced
from softprompts.tasks.templates import template_problems

if TYPE_CHECKING:
    from softprompts.backbones.backbone import Backbone


@dataclass(frozen=True)
class Setting:
    """What a readout is built for.

    Attributes:
        backbone: what it reads from.
        format: the task's labels, templates and verbalizer.
        tokenization: turns rows into tokens within the budget.
        generator: draws trained parameters.
        context: what stands in front of every input: `instruction`, `demonstrations`, or nothing.
    """

    backbone: Backbone
    format: TaskFormat
    tokenization: Tokenization
    generator: Generator
    context: str | None = None


class Readout(nn.Module, ABC):
    """Encodes examples the way it reads them, and turns backbone output into scores.

    Attributes:
        needs_head: whether scores come from vocabulary logits rather than hidden states.
        has_parameters: whether it has something to train.
        summary_name: says how `summary` summarizes; equal names mean equal summaries.
        template: how a row becomes text, with what stands in front of it.
        num_shown: demonstrations in front of all inputs.
    """

    needs_head: bool
    has_parameters: bool = True
    summary_name: str = "values"
    template: Template
    num_shown: int = 0

    @abstractmethod
    def __init__(self, setting: Setting, **options: Any) -> None:
        super().__init__()

    @abstractmethod
    def encode(self, example: Example) -> EncodedExample:
        """Return the token sequences that score an example.

        Raises:
            DataError: if the row lacks a field of the template, or cannot be cut to fit.
        """

    @abstractmethod
    def places(self, batch: Batch, spliced: Spliced) -> Tensor:
        """Return where the backbone's output is read. Shape `(reads, slots)`.

        A read is an input, or for encoder-decoders a target.
        """

    def show(self, examples: Sequence[Example], longest: int) -> int:
        """Put answered examples in front of all inputs, each that still fits.

        Args:
            examples: the examples, in the order they are shown.
            longest: tokens of the longest input, for which the context keeps room.

        Returns:
            How many there are.

        Raises:
            PromptError: if the readout shows none.
        """
        raise PromptError(
            f"`readout` must be cloze or text to show demonstrations, but is {type(self).__name__}."
        )

    def trained_on(self, encoded: EncodedExample) -> EncodedExample:
        """Return what the loss of an example depends on: the example itself, or a part of it.

        Args:
            encoded: from `encode`.
        """
        return encoded

    def summary(self, values: Tensor, batch: Batch) -> Tensor:
        """Return what `scores` needs of the backbone's output; nothing trained comes before it.

        Args:
            values: hidden states or logits at `places`. Shape `(reads, slots, width)`.
            batch: the batch that was read.

        Returns:
            The values themselves, or fewer: a readout that pools returns `(reads, width)`.
        """
        return values

    @abstractmethod
    def scores(self, values: Tensor, batch: Batch) -> Tensor:
        """Return a score per example and column, `-inf` where an example has no such column.

        Args:
            values: what `summary` returned.
            batch: the batch that was read.

        Returns:
            Scores, float32. Shape `(batch, labels)`.
        """

    def loss(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of the right columns, `-log sum_right softmax(scores)`.

        Args:
            scores: from `scores`. Shape `(batch, labels)`.
            batch: the batch with its answers.

        Returns:
            Losses. Shape `(batch,)`.
        """
        right = scores.masked_fill(~batch.answers, -torch.inf)
        return scores.logsumexp(dim=1) - right.logsumexp(dim=1)


def template_for(format: TaskFormat, readout: str) -> Template:
    """Return a task's template for a readout.

    Raises:
        DataError: if the task has none, or it lacks a place that the readout needs.
    """
    if readout not in format.templates:
        raise DataError(
            f"task {format.name} must have a template for the {readout!r} readout, but has "
            f"{', '.join(format.templates) or 'none'}."
        )
    source = format.templates[readout]
    problems = template_problems(readout, source, format.has_choices)
    if problems:
        raise DataError(f"task {format.name}: {' '.join(problems)}")
    return parse_template(source)


def label_words(format: TaskFormat, verbalizer: Mapping[str, str]) -> tuple[str, ...]:
    """Return the label words in column order.

    Raises:
        DataError: if a label has none, or two labels share theirs.
    """
    missing = [label for label in format.labels if label not in verbalizer]
    if missing:
        raise DataError(
            f"task {format.name} must have label words for {', '.join(format.labels)}, but lacks "
            f"{', '.join(missing)}."
        )
    words = tuple(verbalizer[label] for label in format.labels)
    if len(set(words)) < len(words):
        raise DataError(f"label words of {format.name} must differ, but are {', '.join(words)}.")
    return words
