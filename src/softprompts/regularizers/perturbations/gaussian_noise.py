"""Gaussian noise on the input's embeddings."""

from __future__ import annotations

from typing import final

import torch
from torch import Generator, Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.regularizers.base import Inputs, Perturbed, Seen
from softprompts.regularizers.perturbations.base import Perturbation


@final
class GaussianNoise(Perturbation):
    """Adds `sigma * rms * n`, `n` standard normal, to each number of each field token.

    Args:
        backbone: `rms` is the root-mean-square of its embedding table.
        sigma: the noise in that unit, so that one value serves every backbone.

    Reference:
        Chen et al. (2023), arXiv 2305.02423, PTP with random noise in embedding space.

    Differences:
        The unit is ours.
    """

    def __init__(self, backbone: Backbone, *, sigma: float = 0.1) -> None:
        super().__init__(backbone)
        self.sigma = sigma
        self.scale = sigma * backbone.embedding_rms

    @property
    def is_idle(self) -> bool:
        """Whether there is no noise."""
        return self.sigma == 0

    def perturb(self, inputs: Inputs, copy: int, seen: Seen | None) -> Perturbed:
        """Return the inputs with noise of their own per example."""
        noise = draw_normal(inputs, copy) * self.scale
        return moved(inputs, noise)


def draw_normal(inputs: Inputs, copy: int) -> Tensor:
    """Return standard normal numbers for the field tokens of each example, 0 beyond them.

    An example's numbers depend on its place in the update alone, not on the micro-batch.

    Args:
        inputs: the micro-batch.
        copy: number of the copy.

    Returns:
        Numbers, float32. Shape `(batch, width, embedding)`.
    """

    def draw(count: int, generator: Generator) -> Tensor:
        return torch.randn(count, inputs.embeddings.shape[-1], generator=generator)

    return _stack(inputs, [draw(*given) for given in own_draws(inputs, copy)])


def own_draws(inputs: Inputs, copy: int) -> list[tuple[int, Generator]]:
    """Return the number of field tokens and a fresh generator of each example.

    Args:
        inputs: the micro-batch.
        copy: number of the copy.
    """
    counts = inputs.fields.counts.tolist()
    places = [0] * len(counts)
    examples = inputs.fields.examples.tolist()
    for example, place in zip(examples, inputs.draws.places.tolist(), strict=True):
        places[example] = place
    return [
        (count, inputs.draws.own("perturbation", place, inputs.number, copy))
        for count, place in zip(counts, places, strict=True)
    ]


def moved(inputs: Inputs, changes: Tensor) -> Perturbed:
    """Return inputs whose field tokens are moved.

    Args:
        inputs: the micro-batch.
        changes: per example and field token. Shape `(batch, width, embedding)`.
    """
    embeddings = inputs.embeddings
    added = inputs.fields.spread(changes.detach()).to(embeddings)
    return Perturbed(embeddings + added, (changes != 0).flatten(1).any(dim=1))


def _stack(inputs: Inputs, rows: list[Tensor]) -> Tensor:
    """Pad and stack. Shape `(batch, width, embedding)`."""
    width, size = inputs.fields.width, inputs.embeddings.shape[-1]
    stacked = torch.zeros(len(rows), width, size)
    for example, row in enumerate(rows):
        stacked[example, : len(row)] = row
    return stacked.to(inputs.embeddings.device)
