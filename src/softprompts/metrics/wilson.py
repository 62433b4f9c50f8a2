"""How sure a share of right answers is, and a difference of two on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist


def wilson_interval(share: float, num_items: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a share of right answers, which holds as often as `level`.

    Reference:
        Wilson (1927), Journal of the American Statistical Association 22.

    Example:
        >>> low, high = wilson_interval(0.75, 56)
        >>> round(low, 3), round(high, 3)
        (0.623, 0.845)
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    spread = z * z / num_items
    center = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / num_items + spread / (4 * num_items)) / (1 + spread)
    return max(center - half, 0.0), min(center + half, 1.0)


def matched_interval(gaps: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return an interval of the difference of two shares of right answers on the same rows.

    Wald's, after two rows more: one without a difference, and half a row for either side.

    Args:
        gaps: one's answer minus the other's for each row, such as -1, 0 or 1.
        level: how often it holds.

    Reference:
        Agresti and Min (2005), Statistics in Medicine 24, there for answers that are right or not.

    Example:
        >>> low, high = matched_interval([1] * 20 + [-1] * 5 + [0] * 35)
        >>> round(low, 3), round(high, 3)
        (0.092, 0.391)
    """
    z, count = NormalDist().inv_cdf((1 + level) / 2), len(gaps) + 2
    mean = sum(gaps) / count
    variance = (sum(gap * gap for gap in gaps) + 1) / count - mean * mean
    half = z * math.sqrt(variance / count)
    return max(mean - half, -1.0), min(mean + half, 1.0)
