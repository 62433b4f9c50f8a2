"""Gaussian noise on the input's embeddings."""

from __future__ import annotations

from typing import final

from softprompts.backbones.backbone import Backbone
from softprompts.regularizers.base import Inputs, Perturbed, Seen
from softprompts.regularizers.perturbations.base import Perturbation
from softprompts.regularizers.perturbations.drawing import draw_normal, moved


@final
class GaussianNoise(Perturbation):
    """Adds `sigma * rms * n`, `n` standard normal, to each number of each field token.

    `rms` is the root-mean-square of the embedding table, so that one `sigma` serves every backbone.

    Reference:
        Chen et al. (2023), arXiv 2305.02423, PTP with random noise in embedding space.

    Differences:
        The unit is ours.
    """

    def __init__(self, backbone: Backbone, *, sigma: float = 0.1) -> None:
        super().__init__(backbone)
        self.is_idle = sigma == 0
        self.scale = sigma * backbone.embedding_rms

    def perturb(self, inputs: Inputs, copy: int, seen: Seen | None) -> Perturbed:
        """Return the inputs with noise of their own per example."""
        noise = draw_normal(inputs, copy) * self.scale
        return moved(inputs, noise)
