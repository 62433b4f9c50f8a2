"""Scores as arrays: one sample per task, checked, and drawn again with replacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softprompts.errors import DataError

Floats = NDArray[np.float64]
Sample = Sequence[float] | Floats
"""Scores on one task: one number per seed."""
Samples = Sequence[Sample]
"""Scores of one variant: one sample per task."""

NUM_RESAMPLES = 9999
LEVEL = 0.95


def sample(values: Sample, name: str = "scores", at_least: int = 1) -> Floats:
    """Return numbers as an array, after checking them. Shape `(seeds,)`.

    Raises:
        DataError: if there are too few, they are no flat list, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise DataError(f"{name} must be one number per seed, but have shape {array.shape}.")
    if len(array) < at_least:
        raise DataError(f"{name} must be at least {at_least}, but are {len(array)}.")
    wrong = array[~np.isfinite(array)]
    if len(wrong):
        raise DataError(f"{name} must be finite numbers, but have {wrong[0]}.")
    return array


def samples(tasks: Samples, name: str = "scores", at_least: int = 1) -> list[Floats]:
    """Return one checked array per task. Shape of each `(seeds,)`.

    Raises:
        DataError: if there is no task, or `sample` refuses one.
    """
    if not len(tasks):
        raise DataError(f"{name} must be those of at least one task, but are of 0.")
    return [sample(task, name, at_least) for task in tasks]


def paired_samples(first: Samples, second: Samples) -> tuple[list[Floats], list[Floats]]:
    """Return two variants' arrays, whose numbers belong together seed by seed.

    Raises:
        DataError: if tasks or seeds are not equally many, or `sample` refuses one.
    """
    one, other = samples(first), samples(second)
    sizes, others = [len(task) for task in one], [len(task) for task in other]
    if sizes != others:
        raise DataError(
            f"paired scores must be of the same seeds, but are {sizes} and {others} per task."
        )
    return one, other


def is_constant(values: Floats) -> bool:
    """Return whether all numbers are equal up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def check_level(level: float, name: str = "level") -> float:
    """Return a probability strictly between 0 and 1.

    Raises:
        DataError: if it is none.
    """
    if not 0 < level < 1:
        raise DataError(f"{name} must be between 0 and 1, but is {level}.")
    return level
