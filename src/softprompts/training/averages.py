"""Averages of what is trained: the newest state's weight, a pure function of the step."""

from __future__ import annotations

import math


def tail(step: int, total_steps: int, fraction: float = 0.5) -> float:
    """Return the weight that makes an average the mean of the states of the last updates.

    `a_t = a_{t-1} + w_t (x_t - a_{t-1})`, with `w_t = 1 / n` at the `n`-th update that counts, and
    1 before.

    Args:
        step: updates done so far, at least 1.
        total_steps: updates of the whole run.
        fraction: part of the updates that counts.

    Reference:
        Izmailov et al. (2018), arXiv 1803.05407, with a state per update.

    Example:
        >>> [tail(step, 4) for step in range(1, 5)]
        [1.0, 1.0, 1.0, 0.5]
    """
    before = total_steps - max(1, math.ceil(fraction * total_steps))
    return 1 / max(1, step - before)


def exponential(step: int, total_steps: int, decay: float = 0.9) -> float:
    """Return the weight of an exponential average, which is the plain mean of its first states.

    `a_t = a_{t-1} + w_t (x_t - a_{t-1})`, with `w_t = max(1 - decay, 1 / t)`.

    Args:
        step: updates done so far, at least 1.
        total_steps: updates of the whole run.
        decay: share of the average that stays at each update.

    Reference:
        Polyak and Juditsky (1992), with the decay of Tarvainen and Valpola (2017), arXiv
        1703.01780.

    Example:
        >>> [round(exponential(step, 4, decay=0.6), 2) for step in range(1, 5)]
        [1.0, 0.5, 0.4, 0.4]
    """
    return max(1 - decay, 1 / step)
