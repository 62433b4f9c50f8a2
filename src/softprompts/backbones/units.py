"""What the numbers beside a prompt measure, so that one learning rate serves all backbones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softprompts.backbones.memory import Slot

if TYPE_CHECKING:
    from softprompts.backbones.backbone import Backbone

_NUM_TOKENS = 64
"""Tokens, spread evenly over the vocabulary, whose keys and values are measured."""


@dataclass(frozen=True)
class Units:
    """Root-mean-squares, each rounded to a power of two: dividing by one loses no bit.

    Attributes:
        embedding: of the embedding table, as the first layer receives it.
        attentions: of keys and of values, by attention.
    """

    embedding: float
    attentions: Mapping[Slot, tuple[float, float]] = field(default_factory=dict)


def measure(backbone: Backbone, is_input: bool) -> Units:
    """Measure what a prompt's rows stand beside.

    Args:
        backbone: the frozen model.
        is_input: whether rows stand in the input alone; else keys and values are measured too.

    Raises:
        BackboneError: if the attention cannot be reached.
    """
    embedding = nearest_power(backbone.embedding_rms)
    return Units(embedding, {} if is_input else backbone.attention_units)


@torch.no_grad()
def measure_attentions(backbone: Backbone) -> dict[Slot, tuple[float, float]]:
    """Measure the keys and values that the backbone makes of tokens from all over its vocabulary.

    Raises:
        BackboneError: if the attention cannot be reached.
    """
    num_tokens = min(_NUM_TOKENS, backbone.vocabulary_size)
    if backbone.context_length is not None:
        num_tokens = min(num_tokens, backbone.context_length)
    ids = torch.arange(num_tokens) * (backbone.vocabulary_size // num_tokens)
    found = backbone.keys_and_values(backbone.embed(ids))
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
