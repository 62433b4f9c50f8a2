"""What the numbers beside a prompt measure, so that one learning rate serves all backbones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softprompts.backbones.memory import KeyValues, Slot


@dataclass(frozen=True)
class Units:
    """Root-mean-squares, each rounded to a power of two: dividing by one loses no bit.

    Attributes:
        embedding: of the embedding table, as the first layer receives it.
        attentions: of keys and of values, by attention.
    """

    embedding: float
    attentions: Mapping[Slot, tuple[float, float]] = field(default_factory=dict)


@torch.no_grad()
def measure_attentions(found: Mapping[Slot, KeyValues]) -> dict[Slot, tuple[float, float]]:
    """Measure keys and values by attention."""
    return {slot: (_unit(pair.keys), _unit(pair.values)) for slot, pair in found.items()}


def nearest_power(value: float) -> float:
    """Return the power of two that is nearest in ratio; 1 where there is nothing to measure.

    Example:
        >>> nearest_power(0.136), nearest_power(10.0), nearest_power(0.0)
        (0.125, 8.0, 1.0)
    """
    return 2.0 ** round(math.log2(value)) if 0 < value < math.inf else 1.0


def _unit(states: Tensor) -> float:
    return nearest_power(float(states.double().square().mean().sqrt()))
