"""Discrete choices that gradients pass through."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from softprompts.errors import PromptError
from softprompts.prompts.draws import Draws


def select(logits: Tensor, draws: Draws | None, name: str) -> Tensor:
    """Choose one option per row by straight-through Gumbel-Softmax.

    In training `soft = softmax((logits + noise) / temperature)`, and the weights are one-hot at
    its largest entry with the gradient of `soft`. In evaluation the weights are one-hot at the
    largest logit, without noise: the same input always gets the same choice.

    Weights are one-hot in value, the noise is that of `name`. Shapes `(batch, options)`.

    Reference:
        Jang, Gu and Poole (2017), arXiv 1611.01144, section 2.2.

    Differences:
        The code of Yang et al. (2023, arXiv 2303.02909) keeps the noise on in evaluation.
    """
    if draws is None:
        return functional.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits)
    noise = draws.gumbel(name, logits.shape[1]).to(logits)
    soft = ((logits + noise) / draws.temperature).softmax(dim=1)
    hard = functional.one_hot(soft.argmax(dim=1), logits.shape[1]).to(logits)
    return hard + (soft - soft.detach())


def linear_logits(
    instances: Tensor | None, weight: Tensor, bias: Tensor, what: str, *, has_relu: bool = False
) -> Tensor:
    """Return `W x / rms(x) + b`, the logits of a selector that looks at each input.

    Shapes of `instances` `(batch, width)`, `weight` `(options, width)`, `bias` `(options,)` and of
    the logits `(batch, options)`.
    """
    if instances is None:
        raise PromptError(f"instance vectors must be given to {what}.")
    rms = instances.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-12)
    logits = (instances / rms) @ weight.T + bias  # (batch, options)
    return logits.relu() if has_relu else logits


def linear_weight(width: int, options: int, draws: torch.Generator) -> Tensor:
    """Return a selector's first weights: small, so that no option is preferred at the start."""
    return torch.empty(options, width).normal_(0.0, 0.02, generator=draws)
