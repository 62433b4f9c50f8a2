"""What gradients alone tell: the highest value within a ball, a Hessian's ends, and its trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Generator, Tensor

from softprompts.errors import RunFolderError


@final
@dataclass(frozen=True, eq=False)
class Objective:
    """What is to be raised.

    Attributes:
        values: from a change to values: one, or one per block. Shape `(blocks, ...)` to `(1,)` or
            `(blocks,)`.
        gradients: from a change to values and the gradient of their sum.
    """

    values: Callable[[Tensor], Tensor]
    gradients: Callable[[Tensor], tuple[Tensor, Tensor]]


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

    Reference:
        Madry et al. (2018), arXiv 1706.06083, section 2.1.
    """
    best, gradient = first
    change = torch.zeros_like(gradient)
    lengths = per_block(limits, change)
    for number in range(steps):
        change = change + lengths * gradient / block_norms(gradient)
        change = change * (lengths / block_norms(change)).clamp(max=1)
        if number < steps - 1:
            values, gradient = objective.gradients(change)
        else:
            values = objective.values(change)
        best = torch.maximum(best, values)
    return best


def block_norms(values: Tensor) -> Tensor:
    """Return each block's length, not quite 0 where it is. Shape `(blocks, 1, ...)`."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1).clamp(min=1e-30)
    return per_block(norms, values)


def per_block(numbers: Tensor, blocks: Tensor) -> Tensor:
    """Return a number per block so that it multiplies them. Shape `(blocks, 1, ...)`."""
    return numbers.view(-1, *[1] * (blocks.dim() - 1))


Product = Callable[[Tensor], Tensor]
"""From a vector to a symmetric matrix times it. Shape `(size,)`."""


@final
@dataclass(frozen=True)
class Ends:
    """The ends of a symmetric matrix's spectrum; an eigenvalue is within `top_error` of `top`."""

    top: float
    bottom: float
    top_error: float
    num_products: int


def hessian_product(gradient: Callable[[Tensor], Tensor], step: float) -> Product:
    """Return products with the Hessian at zero, by central differences of the gradient.

    `H v = |v| (g(h v / |v|) - g(-h v / |v|)) / 2h`, with an error of order `h^2`, and of the
    gradient's rounding over `h`. No graph of a gradient is kept, and attention of any kind will do:
    fused kernels have no second derivative, and that of gated attention would be wrong in silence.

    `h` is `step`, and the gradient's shape `(size,)`.

    Reference:
        Pearlmutter (1994), Fast exact multiplication by the Hessian, section 2, for the difference.
    """

    def product(vector: Tensor) -> Tensor:
        norm = float(torch.linalg.vector_norm(vector))
        if norm == 0:
            return torch.zeros_like(vector)
        ahead = vector * (step / norm)
        return (gradient(ahead).double() - gradient(-ahead).double()) * (norm / (2 * step))

    return product


def lanczos(product: Product, start: Tensor, num_products: int, tolerance: float = 0.0) -> Ends:
    """Return the ends of a symmetric matrix's spectrum.

    All vectors are kept and made orthogonal again at each step, in float64.

    Args:
        product: products with the matrix.
        start: any vector but zero. Shape `(size,)`.
        num_products: most products, at least 1; `size` give the whole spectrum.
        tolerance: stop where the error of the top is at most this share of its size.

    Raises:
        RunFolderError: if a product is not finite.

    Reference:
        Lanczos (1950); Golub and Van Loan, Matrix Computations, section 10.1, for the bound.
    """
    basis = [start.double() / torch.linalg.vector_norm(start.double())]
    diagonal: list[float] = []
    beside: list[float] = []
    values, error = np.zeros(1), math.inf
    for _ in range(min(num_products, start.numel())):
        image = product(basis[-1]).double()
        scale = float(torch.linalg.vector_norm(image))
        diagonal.append(float(image @ basis[-1]))
        kept = torch.stack(basis)  # (products, size)
        for _ in range(2):
            image = image - kept.T @ (kept @ image)
        rest = float(torch.linalg.vector_norm(image))
        matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        if not np.isfinite(matrix).all():
            raise RunFolderError(
                "the gradients of a run must be finite around its prompt, but are not: its numbers "
                "are too large to be measured."
            )
        values, vectors = np.linalg.eigh(matrix)
        error = rest * abs(float(vectors[-1, -1]))
        if rest <= 1e-12 * max(scale, 1e-300) or error <= tolerance * abs(float(values[-1])):
            break
        beside.append(rest)
        basis.append(image / rest)
    return Ends(float(values[-1]), float(values[0]), error, len(diagonal))


def estimate_trace(
    product: Product, like: Tensor, num_probes: int, draws: Generator
) -> tuple[float, float | None]:
    """Estimate a matrix's trace, the mean of `v H v` over vectors of random signs, and its error.

    The vectors are like `like`, shape `(size,)`, and drawn on the CPU. Of one, the standard error
    is `None`.

    Reference:
        Hutchinson (1990), A stochastic estimator of the trace of the influence matrix.
    """
    found = []
    for _ in range(num_probes):
        vector = (torch.randint(0, 2, (like.numel(),), generator=draws) * 2.0 - 1.0).to(like)
        found.append(float(vector.double() @ product(vector).double()))
    error = None if num_probes < 2 else float(np.std(found, ddof=1)) / math.sqrt(num_probes)
    return float(np.mean(found)), error
