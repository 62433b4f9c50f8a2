"""Races: contestants take turns within one process, a stint of a few updates each.

The trainer of transformers keeps its own loop. After each stint of its updates its callback lets
the others do theirs, so that a busy machine slows all of them alike; what the trainer does between
two updates is its own time. After another's update the first of a contestant finds neither caches
nor memory as it left them, which costs a light one more: a stint is longer than one update.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .contestants import Contestant


@dataclass
class Lap:
    """What one contestant did, round by round, warm-up left out.

    Attributes:
        seconds: time of each update.
        tokens: tokens that each update read, rows of prompts included, padding not.
    """

    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens per second over all rounds."""
        return sum(self.tokens) / sum(self.seconds)

    @property
    def median_rate(self) -> float:
        """Tokens per second of the median round."""
        return statistics.median(
            count / seconds for count, seconds in zip(self.tokens, self.seconds, strict=True)
        )

    @property
    def median_milliseconds(self) -> float:
        """Median time of an update."""
        return round(1000 * statistics.median(self.seconds), 1)

    def note(self, seconds: float, tokens: int) -> None:
        """Add one round."""
        self.seconds.append(seconds)
        self.tokens.append(tokens)


class Race:
    """Turns of a host and its guests.

    Args:
        guests: those that are not the host.
        num_rounds: rounds that count.
        num_warm: rounds before them.
        stint: rounds that each does in one turn; a divisor of all rounds.

    Raises:
        ValueError: if it is not.
    """

    def __init__(
        self, guests: Sequence[Contestant], num_rounds: int, num_warm: int = 2, stint: int = 1
    ) -> None:
        if (num_rounds + num_warm) % stint:
            raise ValueError(
                f"`stint` must divide {num_rounds} + {num_warm} rounds, but is {stint}."
            )
        self.guests, self.num_rounds, self.num_warm = guests, num_rounds, num_warm
        self.stint = stint
        self.laps = {guest.name: Lap() for guest in guests}
        self.host = Lap()
        self._round, self._began = 0, time.perf_counter()
        self._count: Any = None

    def begin(self, count: Any) -> None:
        """Begin a race with a host.

        Args:
            count: counts the host's tokens; see `TokenCount`.
        """
        self._count, self._began = count, time.perf_counter()

    def turn(self) -> bool:
        """End the host's update and, after a stint, let the guests do theirs; is there another?"""
        now = time.perf_counter()
        tokens = self._count.take()
        if self._round >= self.num_warm:
            self.host.note(now - self._began, tokens)
        self._round += 1
        if self._round % self.stint == 0:
            self.play(self._round - self.stint)
        self._began = time.perf_counter()
        return self._round < self.num_warm + self.num_rounds

    def play(self, first: int) -> None:
        """Let each guest do a stint of updates, the first of that number."""
        for guest in self.guests:
            for round_ in range(first, first + self.stint):
                began = time.perf_counter()
                tokens = guest.step()
                if round_ >= self.num_warm:
                    self.laps[guest.name].note(time.perf_counter() - began, tokens)

    def run(self) -> dict[str, Lap]:
        """Race without a host."""
        for first in range(0, self.num_warm + self.num_rounds, self.stint):
            self.play(first)
        return self.laps


def longest_stint(num_rounds: int, num_warm: int = 2, most: int = 4) -> int:
    """Return the longest stint that divides so many rounds, warm-up included."""
    whole = num_rounds + num_warm
    return next(size for size in range(most, 0, -1) if whole % size == 0)


def ratios(first: Lap, second: Lap, num_blocks: int = 4) -> dict[str, float]:
    """Return how many times faster the first read tokens than the second.

    Rounds are also put together in blocks, since updates read more or fewer tokens. A contestant
    that groups rows by length has blocks of long and of short rows, so that only all rounds
    together say how long the task takes it.

    Returns:
        The ratio over all rounds (`whole`); median, least and largest ratio over the blocks.
    """
    num_rounds = min(len(first.seconds), len(second.seconds))
    size = max(1, num_rounds // num_blocks)
    found = []
    for start in range(0, num_rounds - size + 1, size):
        block = slice(start, start + size)
        rates = [sum(lap.tokens[block]) / sum(lap.seconds[block]) for lap in (first, second)]
        found.append(rates[0] / rates[1])
    return {
        "whole": round(first.rate / second.rate, 3),
        "median": round(statistics.median(found), 3),
        "least": round(min(found), 3),
        "most": round(max(found), 3),
    }
