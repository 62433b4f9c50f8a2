"""How training tells where it is."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import Any, final


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


@final
class UpdateBar(Progress):
    """Shows updates as `progress_bar` does."""

    def __init__(self) -> None:
        self._bar = progress_bar("update")

    def update(self, step: int, total_steps: int) -> None:
        """Move the bar."""
        if self._bar.total is None:
            self._bar.reset(total_steps)
        self._bar.update(step - self._bar.n)
        if step == total_steps:
            self._bar.close()


def progress_bar(unit: str, total: int | None = None, done: int = 0, text: str = "") -> Any:
    """Return a bar of tqdm in a terminal or a notebook, one that shows nothing elsewhere.

    Args:
        unit: what is counted.
        total: how many there are, where that is known.
        done: how many are done already.
        text: what stands in front.
    """
    from tqdm.auto import tqdm

    is_silent = False if "ipykernel" in sys.modules else None  # None: where it is no terminal
    return tqdm(
        total=total,
        initial=done,
        desc=text,
        unit=unit,
        delay=0.1,
        disable=is_silent,
        leave=not text,
    )
