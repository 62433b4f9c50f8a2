"""Scores and metrics of a prompt on examples, without gradients or randomness."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.sources import first_line
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import MemoryShortageError, SoftPromptsWarning
from softprompts.examples import Example, TaskFormat
from softprompts.metrics.scoring import compute
from softprompts.prompts.choices import ChoiceLog
from softprompts.prompts.prompt import Prompt
from softprompts.readouts.base import Readout
from softprompts.training.batching import by_length
from softprompts.training.forward import Part, score
from softprompts.training.memory import free_memory, is_out_of_memory
from softprompts.training.reader import find_reader
from softprompts.training.trainable import Model


@dataclass(frozen=True)
class EncodedSplit:
    """A split's examples beside their encoded form, in the same order."""

    examples: tuple[Example, ...]
    encoded: tuple[EncodedExample, ...]

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(frozen=True)
class Evaluation:
    """What a prompt did on a split.

    Attributes:
        scores: score per example and column, `-inf` for columns it lacks.
        metrics: metric values in `[0, 1]`, by name.
        score: their mean.
        loss: mean loss.
        num_cut: inputs that were cut to fit.
        choices: what the prompt chose; see `ChoiceLog.summary`.
    """

    scores: tuple[tuple[float, ...], ...]
    metrics: dict[str, float]
    score: float
    loss: float
    num_cut: int = 0
    choices: Mapping[str, Any] = field(default_factory=dict)


@torch.no_grad()
def score_examples(
    backbone: Backbone,
    prompt: Prompt,
    readout: Readout,
    encoded: Sequence[EncodedExample],
    choices: ChoiceLog | None = None,
) -> tuple[list[tuple[float, ...]], list[float]]:
    """Score examples, batched by length, returned in their own order.

    Args:
        backbone: the frozen model.
        prompt: the prompt.
        readout: the readout.
        encoded: the examples.
        choices: takes note of what the prompt chose.

    Returns:
        Scores per example, one per column it has; and losses, NaN for unlabelled examples.

    Raises:
        MemoryShortageError: if memory does not hold one example.
    """
    scores: list[tuple[float, ...]] = [()] * len(encoded)
    losses = [float("nan")] * len(encoded)
    waiting = by_length(encoded)[::-1]
    while waiting:
        indices = waiting.pop()
        found = _score_batch(backbone, prompt, readout, [encoded[i] for i in indices])
        if isinstance(found, str):
            waiting += _halves(indices, found)
            free_memory(backbone.device)
            continue
        part, values, loss = found
        if choices is not None:
            choices.extend(part.choices)
        for place, (index, line) in enumerate(zip(indices, values, strict=True)):
            scores[index] = tuple(line[: encoded[index].num_columns])
            if encoded[index].answers:
                losses[index] = loss[place]
    return scores, losses


def _score_batch(
    backbone: Backbone, prompt: Prompt, readout: Readout, rows: Sequence[EncodedExample]
) -> tuple[Part, list[list[float]], list[float]] | str:
    """Return a batch's part, scores and losses, or what the allocator said without memory."""
    try:
        batch = collate(rows, backbone.tokenizer.pad_token_id).to(backbone.device)
        part = Part(prompt, readout, batch)
        values = score(backbone, [part])[0]
        return part, values.tolist(), part.readout.loss(values, batch).tolist()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return first_line(error)


def _halves(indices: list[int], reason: str) -> list[list[int]]:
    """Cut a batch that memory did not hold, and say so."""
    if len(indices) == 1:
        raise MemoryShortageError(
            f"one example must fit in memory to be scored, but does not: {reason}"
        )
    middle = len(indices) // 2
    text = f"memory does not hold {len(indices)} examples to score; they are scored in halves."
    warnings.warn(text, SoftPromptsWarning, stacklevel=2)
    return [indices[middle:], indices[:middle]]


def evaluate(
    backbone: Backbone,
    prompt: Prompt,
    readout: Readout,
    split: EncodedSplit,
    format: TaskFormat,
) -> Evaluation:
    """Evaluate a prompt on a labelled split.

    Args:
        backbone: the frozen model.
        prompt: the prompt.
        readout: the readout.
        split: labelled examples, at least one.
        format: the task's labels and metrics.
    """
    choices = ChoiceLog()
    scores, losses = score_examples(backbone, prompt, readout, split.encoded, choices)
    find_reader().save(backbone)
    predictions = [best_column(line) for line in scores]
    metrics = compute(format.metrics, predictions, split.examples, format)
    loss = sum(losses) / len(losses)
    found = choices.summary(format.labels)
    num_cut = sum(example.is_cut for example in split.encoded)
    return Evaluation(tuple(scores), metrics, fmean(metrics.values()), loss, num_cut, found)


def evaluate_tasks(model: Model, splits: Mapping[str, EncodedSplit]) -> dict[str, Evaluation]:
    """Evaluate a run on a labelled split of each of its tasks.

    Args:
        model: what the run trains.
        splits: labelled examples by task, for all of them or some.

    Returns:
        The evaluation of each of these tasks.
    """
    found = {}
    for name, split in splits.items():
        track = model.tracks[name]
        found[name] = evaluate(model.backbone, track.prompt, track.readout, split, track.format)
    return found


def best_column(scores: Sequence[float]) -> int:
    """Return the column with the highest score; the first of equals, and 0 if all are NaN."""
    return max(range(len(scores)), key=lambda c: (scores[c] == scores[c], scores[c], -c))
