"""The highest value within a ball, by projected gradient ascent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

Values = Callable[[Tensor], Tensor]
Gradients = Callable[[Tensor], tuple[Tensor, Tensor]]


@final
@dataclass(frozen=True, eq=False)
class Objective:
    """What is to be raised.

    Attributes:
        values: from a change to values: one, or one per block. Shape `(blocks, ...)` to `(1,)` or
            `(blocks,)`.
        gradients: from a change to values and the gradient of their sum.
    """

    values: Values
    gradients: Gradients


def ascend(
    objective: Objective, first: tuple[Tensor, Tensor], limits: Tensor, steps: int
) -> Tensor:
    """Return the highest values that an ascent meets from zero on, zero itself included.

    Each step goes a radius along the gradient, by blocks, and back into the ball of each block:
    `x <- project(x + limit g / |g|)`. A block whose gradient is zero stays.

    Args:
        objective: what is raised.
        first: values and gradient at zero.
        limits: radius of each block's ball. Shape `(blocks,)`.
        steps: number of steps, at least 1.

    Returns:
        The highest values. Shape as the objective's.

    Reference:
        Madry et al. (2018), arXiv 1706.06083, section 2.1.
    """
    best, gradient = first
    change = torch.zeros_like(gradient)
    lengths = limits.view(-1, *[1] * (change.dim() - 1))
    for number in range(steps):
        norms = _norms(gradient)
        change = change + lengths * gradient / norms.clamp(min=1e-30)
        change = change * (lengths / _norms(change).clamp(min=1e-30)).clamp(max=1)
        if number < steps - 1:
            values, gradient = objective.gradients(change)
        else:
            values = objective.values(change)
        best = torch.maximum(best, values)
    return best


def _norms(values: Tensor) -> Tensor:
    """Return each block's length. Shape `(blocks, 1, ...)`."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms.view(-1, *[1] * (values.dim() - 1))
