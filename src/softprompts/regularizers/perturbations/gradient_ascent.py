"""Projected gradient ascent on the input's embeddings."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.regularizers.base import Inputs, Perturbed, Seen
from softprompts.regularizers.perturbations.base import Perturbation
from softprompts.regularizers.perturbations.drawing import (
    draw_normal,
    draw_uniform,
    moved,
    own_draws,
)

_SMALLEST = 1e-30


@final
class GradientAscent(Perturbation):
    """Moves each example's field tokens to where the loss is high, within a ball.

    Each of `steps` steps is `delta <- project(delta + step * direction(gradient))`. Under `l2` the
    direction is the gradient over its norm and the ball has radius `radius * rms * sqrt(n)`, with
    `n` the numbers in the example's field tokens, so that their root-mean-square change is at most
    `radius * rms`. Under `linf` the direction is the gradient's sign and no number changes by more
    than `radius * rms`, but for rounding where embeddings are bfloat16. All inputs of an example
    are moved together and count once.

    The gradient of the loss is taken with respect to the change alone: the prompt and what it
    chose for the clean input are held, and its own gradient is not touched. A random start needs
    nothing of the clean forward, so the point where the ascent ends is read together with it.

    `rms` is the root-mean-square of the embedding table. A free start is the input itself, where
    the clean pass's gradient serves the first step.

    Reference:
        Chen et al. (2023), arXiv 2305.02423, PTP with adversarial noise in embedding space; Madry
        et al. (2018), arXiv 1706.06083, section 2.1.

    Differences:
        The unit, and what is one example, are ours.
    """

    has_own_forwards = True

    def __init__(
        self,
        backbone: Backbone,
        *,
        radius: float = 0.1,
        norm: str = "l2",
        steps: int = 3,
        step_size: float | None = None,
        is_free: bool = False,
    ) -> None:
        super().__init__(backbone)
        self.radius, self.norm, self.steps = radius, norm, steps
        self.step_size = 2.5 / steps if step_size is None else step_size
        self.rms = backbone.embedding_rms
        self.needs_gradient = self.needs_forward = is_free
        self.draws, self.is_idle = not is_free, radius == 0

    def perturb(self, inputs: Inputs, copy: int, seen: Seen | None) -> Perturbed:
        """Return the inputs where the ascent ends."""
        limit = self._limit(inputs)
        if self.needs_gradient:
            assert seen is not None
            assert seen.gradient is not None
            change = torch.zeros_like(seen.gradient)
            gradients = [seen.gradient]
        else:
            change, gradients = self._start(inputs, copy, limit), []
        for _ in range(self.steps):
            gradient = gradients.pop() if gradients else _gradient(inputs, change)
            step = self.step_size * limit * self._direction(gradient)
            change = self._project(change + step, limit)
        return moved(inputs, change)

    def _limit(self, inputs: Inputs) -> Tensor:
        """Return each example's radius. Shape `(batch, 1, 1)`."""
        counts = inputs.fields.counts.float() * inputs.embeddings.shape[-1]
        factor = counts.sqrt() if self.norm == "l2" else torch.ones_like(counts)
        return (self.radius * self.rms * factor)[:, None, None]

    def _start(self, inputs: Inputs, copy: int, limit: Tensor) -> Tensor:
        """Return a point of each ball. Shape `(batch, width, embedding)`."""
        if self.norm == "linf":
            return limit * (2 * draw_uniform(inputs, copy) - 1) * inputs.fields.own[..., None]
        given = own_draws(inputs, copy, "perturbation-uniform")
        share = torch.cat([torch.rand(1, 1, 1, generator=draws) for _, draws in given])
        share = share.to(inputs.embeddings.device)
        return limit * share * self._direction(draw_normal(inputs, copy))

    def _direction(self, gradient: Tensor) -> Tensor:
        """Return the steepest direction of length 1; zero where there is no gradient."""
        return gradient.sign() if self.norm == "linf" else gradient / _norm(gradient)

    def _project(self, change: Tensor, limit: Tensor) -> Tensor:
        """Return the nearest point of each ball."""
        if self.norm == "linf":
            return torch.minimum(torch.maximum(change, -limit), limit)
        factors: Tensor = (limit / _norm(change)).clamp(max=1.0)
        return change * factors


def _norm(change: Tensor) -> Tensor:
    """Return each example's Euclidean norm. Shape `(batch, 1, 1)`."""
    norms: Tensor = torch.linalg.vector_norm(change.flatten(1), dim=1)
    return norms.clamp(min=_SMALLEST)[:, None, None]


def _gradient(inputs: Inputs, change: Tensor) -> Tensor:
    """Return the gradient of the loss with respect to a change, and of nothing else."""
    embeddings = inputs.embeddings.detach()
    added = inputs.fields.spread(change.detach()).to(embeddings)
    leaf = (embeddings + added).requires_grad_()
    loss = inputs.held_loss(leaf).sum()
    return inputs.fields.collect(torch.autograd.grad(loss, [leaf])[0])
