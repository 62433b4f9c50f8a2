"""Perturbations: small changes of the input's field tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from softprompts.backbones.backbone import Backbone
from softprompts.regularizers.base import Inputs, Perturbed, Seen


class Perturbation(ABC):
    """Changes the embeddings of field tokens, and of no others.

    Prompt rows, padding, special tokens, the template, mask tokens and label words stay as they
    are.

    Args:
        backbone: what the run reads through.

    Attributes:
        needs_forward: whether it looks at what the clean forward said; if not, its copies are read
            in one forward with the clean inputs.
        needs_gradient: whether it looks at the gradient of the clean loss.
        draws: whether two copies of an input differ; if not, one is found from the input alone.
        has_own_forwards: whether it reads inputs itself to find its copies.
        is_idle: whether its strength is zero.
    """

    needs_forward: bool = False
    needs_gradient: bool = False
    draws: bool = True
    has_own_forwards: bool = False
    is_idle: bool = False

    @abstractmethod
    def __init__(self, backbone: Backbone, **options: Any) -> None:
        super().__init__()

    @abstractmethod
    def perturb(self, inputs: Inputs, copy: int, seen: Seen | None) -> Perturbed:
        """Return a perturbed copy of a micro-batch.

        Two copies, by their number, draw apart. `seen` is the clean forward, where `needs_forward`
        asks for it.
        """
