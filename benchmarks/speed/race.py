"""Races: contestants take turns within one process, one update each per round.

The trainer of transformers keeps its own loop. After each of its updates its callback lets the
others do one of theirs, so that a busy machine slows all of them alike; what the trainer does
between two updates is its own time.
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
    """

    def __init__(self, guests: Sequence[Contestant], num_rounds: int, num_warm: int = 2) -> None:
        self.guests, self.num_rounds, self.num_warm = guests, num_rounds, num_warm
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
        """End the host's update, let each guest do one; return whether there is another round."""
        now = time.perf_counter()
        is_warm = self._round >= self.num_warm
        tokens = self._count.take()
        if is_warm:
            self.host.note(now - self._began, tokens)
        self.play(is_warm)
        self._round += 1
        self._began = time.perf_counter()
        return self._round < self.num_warm + self.num_rounds

    def play(self, is_warm: bool) -> None:
        """Let each guest do one update."""
        for guest in self.guests:
            began = time.perf_counter()
            tokens = guest.step()
            if is_warm:
                self.laps[guest.name].note(time.perf_counter() - began, tokens)

    def run(self) -> dict[str, Lap]:
        """Race without a host."""
        for round_ in range(self.num_warm + self.num_rounds):
            self.play(round_ >= self.num_warm)
        return self.laps


def ratios(first: Lap, second: Lap, num_blocks: int = 4) -> dict[str, float]:
    """Return how many times faster the first read tokens than the second.

    Rounds are put together in blocks, since updates read more or fewer tokens.

    Returns:
        Median, least and largest ratio over the blocks.
    """
    num_rounds = min(len(first.seconds), len(second.seconds))
    size = max(1, num_rounds // num_blocks)
    found = []
    for start in range(0, num_rounds - size + 1, size):
        block = slice(start, start + size)
        rates = [sum(lap.tokens[block]) / sum(lap.seconds[block]) for lap in (first, second)]
        found.append(rates[0] / rates[1])
    return {
        "median": round(statistics.median(found), 3),
        "least": round(min(found), 3),
        "most": round(max(found), 3),
    }
