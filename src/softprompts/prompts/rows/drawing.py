"""First weights of the networks that make rows, drawn from a generator of their own."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Generator, nn

Layer = TypeVar("Layer", bound=nn.Module)


def start_as_nothing(layer: nn.Module) -> None:
    """Set a layer's weights to 0, so that what it adds starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def linear(inputs: int, outputs: int, generator: Generator) -> nn.Linear:
    """Return a Linear layer with weights drawn from `generator`."""
    layer = nn.Linear(inputs, outputs, device="meta")
    return drawn(layer, inputs, generator)


def drawn(layer: Layer, fan_in: int, generator: Generator) -> Layer:
    """Give a layer that was built without weights its first ones: uniform in `±1 / sqrt(fan_in)`.

    Torch's own constructors draw from the global generator, which the library leaves alone. For an
    LSTM they count its width alone as the fan-in.
    """
    layer = layer.to_empty(device="cpu")
    bound = 1 / math.sqrt(fan_in)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator)
    return layer
