"""Cuts things sorted by size into groups that waste little."""

from __future__ import annotations

from collections.abc import Sequence


def cut_by_size(sizes: Sequence[int], max_count: int, overhead: int) -> list[list[int]]:
    """Cut things into groups in which all cost as much as the largest.

    Among all cuts of the things sorted by size, the cheapest is returned, where a group of `n`
    things costs `n * largest + overhead`.

    Args:
        sizes: what each thing costs by itself.
        max_count: most things in a group.
        overhead: cost of one more group.

    Returns:
        Indices per group, every thing once, largest first.

    Example:
        >>> cut_by_size([3, 100, 4, 90], max_count=4, overhead=20)
        [[1, 3], [2, 0]]
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the first n things, and their last cut
    for stop in range(1, len(order) + 1):
        best.append(
            min(
                (best[first][0] + (stop - first) * sizes[order[first]] + overhead, first)
                for first in range(max(0, stop - max_count), stop)
            )
        )
    cuts, stop = [], len(order)
    while stop:
        first = best[stop][1]
        cuts.append(order[first:stop])
        stop = first
    return cuts[::-1]
