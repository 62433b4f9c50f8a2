"""Several tests at once."""

from __future__ import annotations

from collections.abc import Sequence

from softprompts.errors import DataError


def holm(probabilities: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values.

    With `k` tests, the smallest `p` is multiplied by `k`, the next by `k − 1`, and so on; none may
    be below an earlier one or above 1. Who calls differences shown whose adjusted `p` is at most
    5 % calls one wrongly in at most 5 % of families, however the tests depend on each other.

    Args:
        probabilities: one per test; `None` where a test could not be made, which does not count.

    Returns:
        Adjusted values in the same order, `None` where there was none.

    Raises:
        DataError: if a value is not in [0, 1].

    Reference:
        Holm 1979, A simple sequentially rejective multiple test procedure.

    Example:
        >>> holm([0.01, None, 0.04])
        [0.02, None, 0.04]
    """
    given = [(p, place) for place, p in enumerate(probabilities) if p is not None]
    wrong = [p for p, _ in given if not 0 <= p <= 1]
    if wrong:
        raise DataError(f"p must be in [0, 1], but is {wrong[0]}.")
    adjusted: list[float | None] = [None] * len(probabilities)
    largest = 0.0
    for rank, (p, place) in enumerate(sorted(given)):
        largest = max(largest, min(1.0, p * (len(given) - rank)))
        adjusted[place] = largest
    return adjusted
