"""How often each task of a mixture is drawn, from the training rows that it has."""

from __future__ import annotations

from collections.abc import Sequence


def size(sizes: Sequence[int], *, limit: int | None = None) -> list[float]:
    """Return shares in proportion to sizes: `min(n_t, limit) / sum_u min(n_u, limit)`.

    Args:
        sizes: training rows per task, each at least 1.
        limit: most rows of a task that count; `None` is all.

    Returns:
        One share per task, with a sum of 1.

    Reference:
        Raffel et al. (2020), arXiv 1910.10683, section 3.5.2 (examples-proportional mixing).

    Example:
        >>> size([30, 10]), size([30, 10], limit=10)
        ([0.75, 0.25], [0.5, 0.5])
    """
    return temperature(sizes, temperature=1.0, limit=limit)


def temperature(
    sizes: Sequence[int], *, temperature: float = 2.0, limit: int | None = None
) -> list[float]:
    """Return shares in proportion to `min(n_t, limit) ** (1 / temperature)`.

    Args:
        sizes: training rows per task, each at least 1.
        temperature: 1 is by size; the higher, the more even.
        limit: most rows of a task that count; `None` is all.

    Returns:
        One share per task, with a sum of 1.

    Reference:
        Raffel et al. (2020), arXiv 1910.10683, section 3.5.2 (temperature-scaled mixing).

    Example:
        >>> temperature([90, 10], temperature=2.0)
        [0.75, 0.25]
    """
    counted = [min(rows, limit) if limit is not None else rows for rows in sizes]
    weights = [(rows / max(counted)) ** (1 / temperature) for rows in counted]
    return [weight / sum(weights) for weight in weights]


def uniform(sizes: Sequence[int]) -> list[float]:
    """Return equal shares.

    Args:
        sizes: training rows per task.

    Returns:
        One share per task, with a sum of 1.
    """
    return [1 / len(sizes)] * len(sizes)
