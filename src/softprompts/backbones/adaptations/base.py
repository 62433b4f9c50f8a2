"""Adaptations: how a run changes the backbone, and what of it is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from softprompts.backbones.backbone import Backbone


@dataclass(frozen=True)
class Adapted:
    """What a run reads its inputs through.

    That is the frozen backbone itself, or the run's own copy of it, with `parameters` that hold
    what is trained of it, under the names that the model gives it.
    """

    backbone: Backbone
    parameters: nn.Module


class Adaptation(ABC):
    """How a run changes the backbone. The backbone that runs share is never touched."""

    @abstractmethod
    def __init__(self, **options: Any) -> None:
        super().__init__()

    @abstractmethod
    def adapt(self, backbone: Backbone, needs_head: bool, seed: int) -> Adapted:
        """Return what the run reads through, in its first state: it reads as the backbone does.

        Args:
            backbone: the frozen backbone.
            needs_head: whether the readout reads vocabulary logits rather than hidden states;
                what it does not read is not trained.
            seed: the run's seed.

        Returns:
            The adapted backbone. It stays in evaluation mode, so its dropout is off.
        """


@final
class NoAdaptation(Adaptation):
    """The run reads through the shared backbone and trains nothing of it."""

    def __init__(self) -> None:
        super().__init__()

    def adapt(self, backbone: Backbone, needs_head: bool, seed: int) -> Adapted:
        """Return the backbone itself, with nothing to train."""
        return Adapted(backbone, nn.Module())
