"""Optimizers, built from parameter groups with a learning rate each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer


def adamw(
    groups: Sequence[dict[str, Any]],
    weight_decay: float = 1e-5,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> Optimizer:
    """Return AdamW.

    Args:
        groups: parameter groups, each with `params` and `lr`.
        weight_decay: decoupled weight decay.
        beta1: decay of the first moment.
        beta2: decay of the second moment.

    Reference:
        Loshchilov and Hutter (2019), arXiv 1711.05101.
    """
    return torch.optim.AdamW(list(groups), weight_decay=weight_decay, betas=(beta1, beta2))


def adafactor(groups: Sequence[dict[str, Any]], weight_decay: float = 0.0) -> Optimizer:
    """Return Adafactor with a fixed learning rate, neither relative nor scaled by parameters.

    Args:
        groups: parameter groups, each with `params` and `lr`.
        weight_decay: weight decay.

    Reference:
        Shazeer and Stern (2018), arXiv 1804.04235.
    """
    from transformers.optimization import Adafactor

    optimizer: Optimizer = Adafactor(
        list(groups), weight_decay=weight_decay, relative_step=False, scale_parameter=False
    )
    return optimizer
