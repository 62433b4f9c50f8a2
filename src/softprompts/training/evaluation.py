"""Scores and metrics of a prompt on examples, without gradients or randomness."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.sources import first_line
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import MemoryShortageError, SoftPromptsWarning
from softprompts.examples import Example, TaskFormat
from softprompts.machine_memory import free_memory, is_out_of_memory
from softprompts.metrics.scoring import answers_of, compute, mean_score
from softprompts.metrics.writing import Written
from softprompts.prompts.choices import ChoiceLog
from softprompts.prompts.prompt import Prompt
from softprompts.readouts.base import Readout
from softprompts.readouts.writing import WritingReadout
from softprompts.training.batching import by_equal_length, by_length
from softprompts.training.forward import Part, score
from softprompts.training.reader import find_reader
from softprompts.training.trainable import Model
from softprompts.training.writing import Writer, without_targets, write_batch

T = TypeVar("T")


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
        scores: score per example and column, `-inf` for columns it lacks; in a task of writing the
            log-likelihood of each token of the first reference.
        metrics: metric values by name, in `[0, 1]` but for those that are no share.
        score: the mean of those that are.
        loss: mean loss.
        num_cut: inputs that were cut to fit.
        choices: what the prompt chose; see `ChoiceLog.summary`.
        texts: what was written for each example, in a task of writing.
        answers: which examples were answered rightly; see `answers_of`.
    """

    scores: tuple[tuple[float, ...], ...] = field(repr=False)
    metrics: dict[str, float]
    score: float
    loss: float
    num_cut: int = 0
    choices: Mapping[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    answers: str = ""


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

    def read(indices: list[int]) -> tuple[Part, list[list[float]], list[float]]:
        rows = [encoded[i] for i in indices]
        batch = collate(rows, backbone.tokenizer.pad_token_id).to(backbone.device)
        part = Part(prompt, readout, batch)
        values = score(backbone, [part])[0]
        return part, values.tolist(), part.readout.loss(values, batch).tolist()

    for indices, (part, values, loss) in _in_batches(backbone, by_length(encoded), read):
        if choices is not None:
            choices.extend(part.choices)
        for place, (index, line) in enumerate(zip(indices, values, strict=True)):
            scores[index] = tuple(line[: encoded[index].num_columns])
            if encoded[index].answers:
                losses[index] = loss[place]
    return scores, losses


@torch.no_grad()
def write_examples(
    backbone: Backbone,
    writers: Sequence[Writer],
    encoded: Sequence[Sequence[EncodedExample]],
) -> list[str]:
    """Let prompts write after examples, batched by length, returned in their own order.

    Args:
        backbone: the model.
        writers: one prompt, or several that write together.
        encoded: the examples as each reads them, with or without targets, which are not looked at.

    Raises:
        MemoryShortageError: if memory does not hold one example.
    """
    views = [list(map(without_targets, own)) for own in encoded]
    texts, has_one_length = [""] * len(views[0]), backbone.pads_left
    if len(writers) == 1 and writers[0][1].decoding.temperature is None:
        has_one_length = True  # each row by itself
    groups = (by_length if has_one_length else by_equal_length)(views[0])

    def read(indices: list[int]) -> list[str]:
        return write_batch(backbone, writers, [[own[i] for i in indices] for own in views])

    for indices, found in _in_batches(backbone, groups, read):
        for index, text in zip(indices, found, strict=True):
            texts[index] = text
    return texts


def _in_batches(
    backbone: Backbone, groups: Sequence[list[int]], read: Callable[[list[int]], T]
) -> Iterator[tuple[list[int], T]]:
    """Yield examples with what is read of them; a batch that memory does not hold in halves."""
    waiting = list(groups)[::-1]
    while waiting:
        indices, reason = waiting.pop(), ""
        try:
            found = read(indices)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        if reason:
            waiting += _halves(indices, reason)
            free_memory(backbone.device)
        else:
            yield indices, found


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
    predictions: Sequence[Any] = [best_column(line) for line in scores]
    texts: Sequence[str] = ()
    if isinstance(readout, WritingReadout):
        texts = write_examples(backbone, [(prompt, readout)], [split.encoded])
        predictions = as_written(texts, scores)
    metrics = compute(format.metrics, predictions, split.examples, format)
    loss = sum(losses) / len(losses)
    found = choices.summary(format.labels)
    num_cut = sum(example.is_cut for example in split.encoded)
    score = mean_score(metrics)
    answers = answers_of(predictions, split.examples, format)
    return Evaluation(tuple(scores), metrics, score, loss, num_cut, found, tuple(texts), answers)


def as_written(texts: Sequence[str], scores: Sequence[Sequence[float]]) -> list[Written]:
    """Return texts with the likelihood of their first references, from that of each token."""
    return [Written(text, sum(line), len(line)) for text, line in zip(texts, scores, strict=True)]


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
