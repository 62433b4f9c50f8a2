"""Temperatures of selections: pure functions of the step."""

from __future__ import annotations


def exponential(
    step: int, total_steps: int, start: float = 1.0, floor: float = 0.5, steps: int | None = None
) -> float:
    """Return a temperature that falls by a constant factor per update to a floor.

    Args:
        step: updates done so far.
        total_steps: updates of the whole run.
        start: temperature of the first update.
        floor: temperature from `steps` on; a recipe's is at most `start`.
        steps: updates until the floor; all of the run when `None`.

    Differences:
        The code of Yang et al. (2023, arXiv 2303.02909) compounds its factors, so that the floor
        of 0.5 is reached by update 680 of 20,000. Here the schedule is what it says.

    Example:
        >>> [round(exponential(step, 2), 3) for step in range(4)]
        [1.0, 0.707, 0.5, 0.5]
    """
    fraction = min(1.0, step / max(1, steps or total_steps))  # a run may have no update
    return float(start * (floor / start) ** fraction)


def constant(step: int, total_steps: int, start: float = 1.0) -> float:
    """Return the same temperature at every update."""
    return start
