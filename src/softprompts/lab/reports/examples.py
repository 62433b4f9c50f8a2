"""Inputs before and after their words were replaced, as runs write them down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from softprompts.errors import StorageError
from softprompts.storage import is_there

FILE: Final = "examples.txt"
_BEFORE, _AFTER = "  before: ", "  after:  "
_MARKED: Final = re.compile(r"\[((?:\[[^\[\]]*\]|[^\[\]])*)\]")  # with tokens such as [MASK] within


@final
@dataclass(frozen=True)
class Example:
    """One input of one update.

    Attributes:
        heading: update, label, losses and predictions.
        before: the input.
        after: the input with its words replaced; brackets stand around those in both.
    """

    heading: str
    before: str
    after: str

    @property
    def before_pieces(self) -> list[str]:
        """The input in pieces; every second one was replaced."""
        return _MARKED.split(self.before)

    @property
    def after_pieces(self) -> list[str]:
        """The changed input in pieces; every second one is new."""
        return _MARKED.split(self.after)


def read_examples(folder: Path, most: int) -> tuple[Example, ...]:
    """Read the last inputs that a run wrote down; a half-written one is left out.

    Args:
        folder: the run's folder.
        most: how many at most.

    Returns:
        The examples, in the order they were written; none where the run writes none.

    Raises:
        StorageError: if the file cannot be read.
    """
    path = folder / FILE
    if not is_there(path):
        return ()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
    found = []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        before = next((line for line in lines if line.startswith(_BEFORE)), None)
        after = next((line for line in lines if line.startswith(_AFTER)), None)
        if before is not None and after is not None:
            found.append(Example(lines[0], before[len(_BEFORE) :], after[len(_AFTER) :]))
    return tuple(found[-most:])
