"""Which examples of which tasks make up each update, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch

from softprompts.seeding import generator


@final
@dataclass(frozen=True)
class Drawn:
    """One task's share of an update.

    Attributes:
        task: the task's name.
        indices: its training rows.
        places: the place of each in the update.
    """

    task: str
    indices: tuple[int, ...]
    places: tuple[int, ...]


@final
class Mixing:
    """Draws a task for each place of an update, and takes that task's next example.

    Each task goes through its rows in epochs of its own, each in its own order. Where there is but
    one task nothing is drawn: its epochs follow each other, and the last update of an epoch may be
    smaller. All of it follows from seed and step: an interrupted run goes on with the same rows.

    Args:
        sizes: training rows by task.
        shares: how often each task is drawn, in the same order.
        num_examples: examples per update.
        seed: the run's seed.
    """

    def __init__(
        self, sizes: Mapping[str, int], shares: Sequence[float], num_examples: int, seed: int
    ) -> None:
        self._sizes, self._num_examples, self._seed = dict(sizes), num_examples, seed
        self._shares = torch.tensor(list(shares), dtype=torch.float64)
        self._taken = [(0,) * len(self._sizes)]  # examples of each task before each update

    def update(self, step: int) -> list[Drawn]:
        """Return the examples of one update, by task; tasks that were not drawn are left out.

        Args:
            step: updates done before this one.
        """
        if len(self._sizes) == 1:
            ((name, size),) = self._sizes.items()
            indices = update_indices(size, self._num_examples, self._seed, step)
            return [Drawn(name, tuple(indices), tuple(range(len(indices))))]
        drawn, taken = self._draw(step), self._taken_before(step)
        found = []
        for number, name in enumerate(self._sizes):
            places = tuple(place for place, task in enumerate(drawn) if task == number)
            indices = [self._row(number, name, taken[number] + n) for n in range(len(places))]
            if places:
                found.append(Drawn(name, tuple(indices), places))
        return found

    def _draw(self, step: int) -> list[int]:
        """Return the number of the task at each place of an update."""
        draws = generator(self._seed, "tasks", step)
        tasks = torch.multinomial(
            self._shares, self._num_examples, replacement=True, generator=draws
        )
        found: list[int] = tasks.tolist()
        return found

    def _taken_before(self, step: int) -> tuple[int, ...]:
        """Return how many examples of each task earlier updates took."""
        while len(self._taken) <= step:
            drawn, before = self._draw(len(self._taken) - 1), self._taken[-1]
            self._taken.append(tuple(n + drawn.count(task) for task, n in enumerate(before)))
        return self._taken[step]

    def _row(self, number: int, name: str, count: int) -> int:
        """Return the row that a task takes after `count` others; the first task's path is bare."""
        epoch, place = divmod(count, self._sizes[name])
        path = ("task", name) if number else ()
        return epoch_order(self._sizes[name], self._seed, epoch, *path)[place]


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
