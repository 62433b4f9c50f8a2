"""Which tokens start a word, whatever the tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ALONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts without spaces: a word per sign
_LETTERS = rf"(?:(?![{_ALONE}])\w)+"
_WORD = re.compile(rf"[{_ALONE}]|{_LETTERS}(?:['’]{_LETTERS})*|[^\w\s]")


def word_starts(text: str, offsets: Sequence[tuple[int, int]]) -> list[bool]:
    """Return which tokens start a word.

    Words are runs of letters and digits, apostrophes inside included; every other sign is a word by
    itself. A token that is only a space belongs to the word that follows it.

    Tokens are given by their first character, and the one after their last.

    Example:
        >>> word_starts("It can't.", [(0, 2), (3, 6), (6, 7), (7, 8), (8, 9)])
        [True, True, False, False, True]
    """
    begins = {found.start() for found in _WORD.finditer(text)}
    starts: list[bool] = []
    last, is_space = 0, False
    for begin, stop in offsets:
        core = begin
        while core < stop and text[core].isspace():
            core += 1
        if core == stop:
            starts.append(True)
            is_space = True
        else:
            is_joined = is_space and core == begin
            starts.append(core in begins and core >= last and not is_joined)
            is_space = False
        last = max(last, stop)
    return starts
