"""Initializers: the rows before training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Generator, Tensor

if TYPE_CHECKING:
    from softprompts.backbones.backbone import Backbone


@dataclass(frozen=True)
class InitializerContext:
    """What an initializer may look at.

    Attributes:
        backbone: whose embedding table is used.
        label_words: the task's label words in column order; empty for choice tasks.
        generator: draws.
        instruction: what the task says is to be done; empty where it says nothing.
    """

    backbone: Backbone
    label_words: Sequence[str]
    generator: Generator
    instruction: str = ""


class Initializer(ABC):
    """Gives a prompt its first rows.

    Attributes:
        has_text: whether rows start from a text, so that `num_tokens(backbone, instruction)` says
            how many tokens it has.
    """

    has_text: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, **options: Any) -> None: ...

    @abstractmethod
    def __call__(self, length: int, context: InitializerContext) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`."""
