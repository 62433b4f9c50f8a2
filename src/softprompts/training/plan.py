"""How a run is trained: what a recipe comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """How a run is trained: flat numbers, no recipe.

    Attributes:
        seed: the run's seed; order and dropout derive from it.
        total_steps: most updates.
        batch_size: examples per micro-batch.
        accumulation_steps: micro-batches per update; an update sees their product in examples.
        clip_norm: largest gradient norm, or infinity.
        evaluation_steps: updates after which the held-out rows are scored.
        checkpoint_every_steps: updates between checkpoints; 0 checkpoints at evaluations.
        patience: evaluations without gain before stopping, or infinity.
        factor: schedule, from the number of updates done to the factor on the learning rates.
        temperature: from the number of updates done to the temperature of selections.
        average: from the number of updates done to the newest state's weight in the average that
            is scored and kept; `None` scores and keeps the newest state.
        sampling: from the training rows of each task to how often it is drawn.
    """

    seed: int
    total_steps: int
    batch_size: int
    accumulation_steps: int
    clip_norm: float
    evaluation_steps: frozenset[int]
    checkpoint_every_steps: int
    patience: float
    factor: Callable[[int], float]
    temperature: Callable[[int], float]
    sampling: Callable[[Sequence[int]], Sequence[float]]
    average: Callable[[int], float] | None = None
