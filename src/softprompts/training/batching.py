"""Which examples go together: training order, micro-batches, evaluation by length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch

from softprompts.encoding.inputs import EncodedExample
from softprompts.seeding import generator


@lru_cache(maxsize=64)
def epoch_order(num_examples: int, seed: int, epoch: int, *path: str) -> tuple[int, ...]:
    """Return the order of examples in an epoch, from the run's seed and `path` alone.

    Example:
        >>> sorted(epoch_order(5, seed=0, epoch=3))
        [0, 1, 2, 3, 4]
    """
    drawn = torch.randperm(num_examples, generator=generator(seed, "order", epoch, *path))
    return tuple(drawn.tolist())


def update_indices(num_examples: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the examples of one update.

    Epochs follow each other, each in its own order; the last update of an epoch may be smaller.

    Args:
        num_examples: rows to train on.
        batch_size: examples per update.
        seed: the run's seed.
        step: updates done before this one.
    """
    per_epoch = -(-num_examples // batch_size)
    epoch, place = divmod(step, per_epoch)
    order = epoch_order(num_examples, seed, epoch)
    return list(order[place * batch_size : (place + 1) * batch_size])


def by_length(
    examples: Sequence[EncodedExample], max_tokens: int = 8192, max_inputs: int = 64
) -> list[list[int]]:
    """Group examples of like length, so that evaluation pays little padding.

    Args:
        examples: encoded examples.
        max_tokens: tokens per batch, padding included; one example may exceed it alone.
        max_inputs: inputs per batch; likewise.

    Returns:
        Indices per batch, every example once, longest first.
    """
    order = sorted(range(len(examples)), key=lambda i: (-examples[i].num_tokens, i))
    batches: list[list[int]] = []
    inputs = width = 0
    for index in order:
        example = examples[index]
        wider = max(width, example.num_tokens)
        more = inputs + len(example.inputs)
        if batches and more <= max_inputs and more * wider <= max_tokens:
            batches[-1].append(index)
            inputs, width = more, wider
        else:
            batches.append([index])
            inputs, width = len(example.inputs), example.num_tokens
    return batches


def cut_by_length(
    lengths: Sequence[int],
    max_size: int,
    overhead_tokens: int,
    *,
    counts: Sequence[int] | None = None,
    most_positions: int | None = None,
) -> list[list[int]]:
    """Cut one update's examples into micro-batches that waste few positions on padding.

    Among all cuts of the length-sorted examples, the cheapest is returned, where a micro-batch
    costs `inputs * longest + overhead_tokens`. The gradient is that of the whole update.

    Args:
        lengths: positions of one input of each example.
        max_size: most examples in a micro-batch.
        overhead_tokens: cost of one more micro-batch, in positions.
        counts: inputs of each example; one each when `None`.
        most_positions: most positions in a micro-batch, padding included; one example may exceed it
            alone. `None` sets no bound.

    Returns:
        Indices per micro-batch, every example once.

    Example:
        >>> cut_by_length([3, 100, 4, 90], max_size=4, overhead_tokens=20)
        [[1, 3], [2, 0]]
        >>> cut_by_length([3, 100, 4, 90], max_size=4, overhead_tokens=20, most_positions=150)
        [[1], [3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    inputs = [0, *accumulate(1 if counts is None else counts[i] for i in order)]
    most = float("inf") if most_positions is None else most_positions
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the first n examples, and their last cut
    for stop in range(1, len(order) + 1):
        choices = []
        for first in range(max(0, stop - max_size), stop):
            positions = (inputs[stop] - inputs[first]) * lengths[order[first]]
            if positions <= most or stop - first == 1:
                choices.append((best[first][0] + positions + overhead_tokens, first))
        best.append(min(choices))
    cuts, stop = [], len(order)
    while stop:
        first = best[stop][1]
        cuts.append(order[first:stop])
        stop = first
    return cuts[::-1]
