"""Runs mixed by weights: what the backbone reads of their prompts, their selectors, their heads."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from softprompts.lab.analysis.subjects import Subject
from softprompts.lab.analysis.surfaces import GivenRows
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.rows.base import Rows
from softprompts.readouts.base import Readout
from softprompts.training.forward import Part, score


@torch.no_grad()
def blended_loss(subjects: Sequence[Subject], weights: Sequence[float]) -> float:
    """Return the mean loss of a mixture of runs, on the rows of the first.

    Args:
        subjects: seeds of one method on one task, read through one backbone.
        weights: how much of each; they sum to 1, and may be negative.
    """
    first = subjects[0]
    prompt = blend([subject.track.prompt for subject in subjects], weights)
    readout = blend([subject.track.readout for subject in subjects], weights)
    assert isinstance(prompt, Prompt)
    assert isinstance(readout, Readout)
    total = 0.0
    for batch in first.batches:
        scores = score(first.backbone, [Part(prompt, readout, batch)])[0]
        total += float(readout.loss(scores, batch).double().sum())
    return total / first.num_examples


def blend(modules: Sequence[nn.Module], weights: Sequence[float]) -> nn.Module:
    """Return a module whose tensors are `Σ w_i t_i`; of rows, those that the backbone reads.

    Args:
        modules: alike but for their numbers; they stay as they are.
        weights: one per module.
    """
    first = modules[0]
    rows = [module for module in modules if isinstance(module, Rows)]
    if len(rows) == len(modules):
        return GivenRows(_sum([one(None) for one in rows], weights))
    clone = copy.copy(first)
    for kind in ("_parameters", "_buffers"):
        held = [getattr(module, kind) for module in modules]
        setattr(clone, kind, {name: _tensor([h[name] for h in held], weights) for name in held[0]})
    children = [dict(module.named_children()) for module in modules]
    clone._modules = {name: blend([c[name] for c in children], weights) for name in children[0]}
    return clone


def _tensor(tensors: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    """Return the sum; the first where there is no number to mix."""
    present = [tensor for tensor in tensors if tensor is not None]
    if len(present) < len(tensors) or not present[0].is_floating_point():
        return tensors[0]
    return _sum(present, weights)


def _sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return `Σ w_i t_i`."""
    pairs = zip(tensors, weights, strict=True)
    return torch.stack([weight * tensor for tensor, weight in pairs]).sum(dim=0)
