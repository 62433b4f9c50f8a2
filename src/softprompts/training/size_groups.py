"""Cuts things sorted by size into groups that waste little."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import accumulate


def cut_by_size(
    sizes: Sequence[int],
    max_count: int,
    overhead: int,
    *,
    counts: Sequence[int] | None = None,
    most: int | None = None,
    allowed: Container[int] | None = None,
) -> list[list[int]]:
    """Cut things into groups in which all cost as much as the largest.

    Among all cuts of the things sorted by size, the cheapest is returned, where a group costs
    `parts * largest + overhead`.

    Args:
        sizes: what each part of a thing costs by itself.
        max_count: most things in a group.
        overhead: cost of one more group.
        counts: parts of each thing; one each when `None`.
        most: most that a group may cost beside its overhead; one thing may cost more alone. `None`
            sets no bound.
        allowed: numbers of things that a group may have, 1 among them; `None` allows all.

    Returns:
        Indices per group, every thing once, largest first.

    Example:
        >>> cut_by_size([3, 100, 4, 90], max_count=4, overhead=20)
        [[1, 3], [2, 0]]
        >>> cut_by_size([3, 100, 4, 90], max_count=4, overhead=20, most=150)
        [[1], [3], [2, 0]]
        >>> cut_by_size([3, 3, 3], max_count=3, overhead=9, allowed={1, 2})
        [[0], [1, 2]]
    """
    order = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)  # equal ones in order
    parts = [0, *accumulate([1] * len(order) if counts is None else map(counts.__getitem__, order))]
    bound = float("inf") if most is None else most
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the first n things, and their last cut
    for stop in range(1, len(order) + 1):
        choices = []
        for first in range(max(0, stop - max_count), stop):
            if allowed is not None and stop - first not in allowed:
                continue
            cost = (parts[stop] - parts[first]) * sizes[order[first]]
            if cost <= bound or stop - first == 1:
                choices.append((best[first][0] + cost + overhead, first))
        best.append(min(choices))
    cuts, stop = [], len(order)
    while stop:
        first = best[stop][1]
        cuts.append(order[first:stop])
        stop = first
    return cuts[::-1]
