"""How training tells where it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final


class Progress(ABC):
    """Is told of every update; must not change anything."""

    @abstractmethod
    def update(self, step: int, total_steps: int) -> None:
        """Take note that `step` of `total_steps` updates are done, of all runs of a pack."""


@final
class Silent(Progress):
    """Says nothing."""

    def update(self, step: int, total_steps: int) -> None:
        """Say nothing."""
