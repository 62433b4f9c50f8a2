"""What is done to a model when it is loaded, so that it runs faster; and whether anything is."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, final

import torch

_FAST = "softprompts.fast"


@cache
def find_fast() -> ModuleType | None:
    """Return the package that does the same faster; `None` where it was taken out."""
    try:
        return importlib.import_module(_FAST)
    except ModuleNotFoundError as error:
        if error.name != _FAST:
            raise
        return None


class Preparer(ABC):
    """Prepares models for their forward; numbers stay the same but for rounding."""

    @abstractmethod
    def choose_attention(self, dtype: str, device: torch.device, is_compiled: bool) -> str:
        """Return the name of the fastest implementation of attention."""

    @abstractmethod
    def why_not(self, attention: str) -> str | None:
        """Return why this machine has not an implementation of attention; `None` where it has."""

    @abstractmethod
    def can_compile(self) -> bool:
        """Return whether layers can be compiled."""

    @abstractmethod
    def prepare(self, model: Any, attention: str) -> None:
        """Prepare a model that was just loaded with an implementation of attention."""

    @abstractmethod
    def lay_out(self, model: Any, run: Callable[[], Any]) -> None:
        """Let the linear layers of a whole model multiply faster.

        Args:
            model: a model on the processor.
            run: runs it on something short.
        """

    @abstractmethod
    def extra_bytes(self, model: Any) -> int:
        """Return what was made beside the weights of a model, in bytes."""


@final
class NoPreparer(Preparer):
    """Leaves models as transformers loads them."""

    def choose_attention(self, dtype: str, device: torch.device, is_compiled: bool) -> str:
        """Return PyTorch's own."""
        return "sdpa"

    def why_not(self, attention: str) -> str | None:
        """Return that it is not there, of those that `softprompts.fast` brings."""
        return "softprompts.fast is not there." if attention in ("plain", "fused") else None

    def can_compile(self) -> bool:
        """Return that none can."""
        return False

    def prepare(self, model: Any, attention: str) -> None:
        """Do nothing."""

    def lay_out(self, model: Any, run: Callable[[], Any]) -> None:
        """Do nothing."""

    def extra_bytes(self, model: Any) -> int:
        """Return 0."""
        return 0


def find_preparer() -> Preparer:
    """Return what prepares models here."""
    fast = find_fast()
    found: Preparer = NoPreparer() if fast is None else fast.PREPARER
    return found
