"""How sure a share of right answers is, over rows."""

from __future__ import annotations

import math
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
