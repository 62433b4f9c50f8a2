"""No adaptation: the backbone stays frozen."""

from __future__ import annotations

from typing import final

from torch import nn

from softprompts.backbones.adaptations.base import Adaptation, Adapted
from softprompts.backbones.backbone import Backbone


@final
class NoAdaptation(Adaptation):
    """The run reads through the shared backbone and trains nothing of it."""

    def __init__(self) -> None:
        super().__init__()

    def adapt(self, backbone: Backbone, needs_head: bool, seed: int) -> Adapted:
        """Return the backbone itself, with nothing to train."""
        return Adapted(backbone, nn.Module())
