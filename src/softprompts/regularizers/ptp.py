"""PTP: penalties on perturbed inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.regularizers.base import (
    Illustration,
    Inputs,
    Penalty,
    Perturbed,
    Regularizer,
    Seen,
)
from softprompts.regularizers.perturbations.base import Perturbation


def _kl(clean: Tensor, perturbed: Tensor, valid: Tensor) -> Tensor:
    """Return `KL(p || q) = sum_c p_c (log p_c - log q_c)`, `p` clean and `q` perturbed.

    `valid` columns are those that exist; the scores of others are not looked at. Shapes
    `(batch, labels)` and `(batch,)`.
    """
    log_p, log_q = _log_softmax(clean, valid), _log_softmax(perturbed, valid)
    return (log_p.exp() * valid * (log_p - log_q)).sum(dim=1)


def _symmetric_kl(clean: Tensor, perturbed: Tensor, valid: Tensor) -> Tensor:
    """Return `(KL(p || q) + KL(q || p)) / 2`; see `_kl` for the arguments."""
    return (_kl(clean, perturbed, valid) + _kl(perturbed, clean, valid)) / 2


def _log_softmax(scores: Tensor, valid: Tensor) -> Tensor:
    """Return log-probabilities over the columns that exist, 0 in the others."""
    held = scores.masked_fill(~valid, -float("inf")).log_softmax(dim=1)
    return held.masked_fill(~valid, 0.0)


_DIVERGENCES = {"kl": _kl, "symmetric-kl": _symmetric_kl}


@final
class PerturbationRegularizer(Regularizer):
    """Penalizes what a perturbation of the input does to the prediction.

    `ce` is the readout's loss of the perturbed input; `kl` and `symmetric-kl` are divergences
    between the clean and the perturbed prediction. Copies are averaged. An example that the
    perturbation leaves as it is has no penalty, and a perturbation of zero strength is no
    regularizer at all.

    With `instances` that are `perturbed`, a copy costs one more forward of the bare backbone.

    Reference:
        Chen et al. (2023), arXiv 2305.02423.

    Differences:
        The paper's exact penalty could not be recovered; these three are our reading.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        perturbation: Perturbation,
        consistency: str = "ce",
        is_clean_live: bool = False,
        num_copies: int = 1,
        instances: str = "clean",
        weight: float = 0.3,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(backbone, weight=weight, warmup_steps=warmup_steps)
        self.rms = backbone.embedding_rms
        self.perturbation, self.consistency = perturbation, consistency
        is_alone = perturbation.needs_forward or perturbation.has_own_forwards
        self.num_copies, self.num_shared_copies = num_copies, 0 if is_alone else num_copies
        self.needs_gradient = perturbation.needs_gradient
        self.needs_clean_graph = is_clean_live and consistency in _DIVERGENCES
        self.has_own_instances = instances == "perturbed"

    @property
    def is_idle(self) -> bool:
        """Whether weight or strength is zero."""
        return self.weight == 0 or self.perturbation.is_idle

    def copies(self, inputs: Inputs) -> list[Perturbed]:
        """Return the copies of a perturbation that needs no forward of its own."""
        if self.perturbation.needs_forward:
            return []
        return [self.perturbation.perturb(inputs, i, None) for i in range(self.num_copies)]

    def penalty(self, seen: Seen) -> Penalty:
        """Return the mean penalty of the copies, and what they did."""
        copies = list(seen.copies)
        if self.perturbation.needs_forward:
            for number in range(self.num_copies):
                found = self.perturbation.perturb(seen.inputs, number, seen)
                copies.append((found, seen.forward(found.embeddings)))
        penalties = [self._one(seen, *copy) for copy in copies]
        return Penalty(
            torch.stack([one.values for one in penalties]).mean(dim=0),
            {
                name: torch.stack([one.about[name] for one in penalties]).mean(dim=0)
                for name in penalties[0].about
            },
            partial(_illustrations, seen, copies),
        )

    def _one(self, seen: Seen, perturbed: Perturbed, scores: Tensor) -> Penalty:
        """Return the penalty of one copy."""
        loss, clean = seen.loss(scores), seen.scores
        values = loss
        if self.consistency in _DIVERGENCES:
            held = clean if self.needs_clean_graph else clean.detach()
            values = _DIVERGENCES[self.consistency](held, scores, seen.inputs.batch.valid)
        change = perturbed.embeddings.detach() - seen.inputs.embeddings.detach()
        about = {
            "perturbation_norm": seen.inputs.fields.mean_square(change).sqrt() / self.rms,
            "agreement": (clean.argmax(dim=1) == scores.argmax(dim=1)).float(),
            "loss_increase": loss.detach() - seen.loss(clean.detach()),
            "changed": perturbed.changed.float(),
            **perturbed.about,
        }
        return Penalty(torch.where(perturbed.changed, values, torch.zeros_like(values)), about)


@torch.no_grad()
def _illustrations(
    seen: Seen, copies: Sequence[tuple[Perturbed, Tensor]], count: int
) -> list[Illustration]:
    """Return up to `count` examples whose words the first copy replaced."""
    (copy, scores), *_ = copies
    if copy.wording is None:
        return []
    batch, clean = seen.inputs.batch, seen.scores
    losses = torch.stack([seen.loss(clean), seen.loss(scores)], dim=1).tolist()
    predictions = torch.stack([clean.argmax(dim=1), scores.argmax(dim=1)], dim=1).tolist()
    answers = batch.answers.tolist()
    found = []
    for example in torch.where(copy.changed)[0].tolist()[:count]:
        right = tuple(column for column, is_right in enumerate(answers[example]) if is_right)
        both = (tuple(losses[example]), tuple(predictions[example]))
        found.append(Illustration(*copy.wording(example), right, *both))
    return found
