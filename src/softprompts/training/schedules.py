"""Learning-rate schedules: pure functions of the step, so that nothing needs to be resumed."""

from __future__ import annotations

import math


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _progress(step: int, total_steps: int, warmup_steps: int) -> float:
    """Return how much of the time after warm-up has passed, in `[0, 1]`."""
    return min(1.0, max(0.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))


def constant(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Return the factor of a constant schedule.

    Args:
        step: updates done so far.
        total_steps: updates of the whole run.
        warmup_steps: updates over which the factor rises linearly to 1.

    Returns:
        The factor on the learning rate, in `(0, 1]`.

    Example:
        >>> [constant(step, 10, warmup_steps=2) for step in (0, 1, 9)]
        [0.5, 1.0, 1.0]
    """
    return _warmup(step, warmup_steps)


def linear(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Return the factor of a schedule that falls linearly to 0 after warm-up.

    See `constant` for the arguments.

    Example:
        >>> [linear(step, 4) for step in range(5)]
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return _warmup(step, warmup_steps) * (1 - _progress(step, total_steps, warmup_steps))


def cosine(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Return the factor of a schedule that falls along half a cosine after warm-up.

    See `constant` for the arguments.

    Example:
        >>> [round(cosine(step, 4), 3) for step in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    fraction = _progress(step, total_steps, warmup_steps)
    return _warmup(step, warmup_steps) * 0.5 * (1 + math.cos(math.pi * fraction))
