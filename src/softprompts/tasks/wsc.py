"""Winograd schemas: find the noun phrase and the pronoun in the text and mark them."""

from __future__ import annotations

import re
from itertools import accumulate

from softprompts.tasks.rows import Row, shown

_NOUN_MARK, _PRONOUN_MARK = "*", "#"
_EDGES = re.compile(r"^\W+|\W+$")


def mark_spans(target: Row, text: str) -> str:
    """Mark the noun phrase as `*…*` and the pronoun as `#…#`, punctuation outside.

    Each span has a text and a word index, counted in `text.split(" ")`. The words at the index may
    differ from the span's text in case and punctuation. Where they differ in more (the official
    validation file has such a row), the nearest place where they agree is taken. A pronoun may lie
    inside its noun phrase (`*#their# mothers*`, in the same file).

    Raises:
        DataError: if a span is nowhere in the text, or the two cross or are the same.
    """
    noun, pronoun = _place(target, "span1", text), _place(target, "span2", text)
    is_apart = noun[1] <= pronoun[0] or pronoun[1] <= noun[0]
    is_inside = noun[0] <= pronoun[0] and pronoun[1] <= noun[1] and noun != pronoun
    if not (is_apart or is_inside):
        raise target.error(
            "span2_index",
            f"must stand apart from or inside {shown(text[slice(*noun)])}, but is "
            f"{target.integer('span2_index')}.",
        )
    inner_first = [(pronoun, _PRONOUN_MARK), (noun, _NOUN_MARK)]
    if is_apart:
        inner_first.sort(reverse=True)
    for (start, stop), mark in inner_first:
        # Marks inside this span have made it longer by two.
        stop += 2 if is_inside and mark == _NOUN_MARK else 0
        text = f"{text[:start]}{mark}{text[start:stop]}{mark}{text[stop:]}"
    return text


def _place(target: Row, name: str, text: str) -> tuple[int, int]:
    """Return the first character of a span and the one after its last."""
    span, index = target.text(f"{name}_text"), target.integer(f"{name}_index")
    words = text.split(" ")
    starts = list(accumulate((len(word) + 1 for word in words), initial=0))
    core = re.escape(_EDGES.sub("", span))
    found: dict[int, tuple[int, int]] = {}  # word index → characters
    if core:
        for match in re.finditer(rf"(?<!\w){core}(?!\w)", text, re.IGNORECASE):
            word = text.count(" ", 0, match.start())
            if not _EDGES.sub("", text[starts[word] : match.start()]):
                found.setdefault(word, match.span())
    if not found or index >= len(words):
        raise target.error(
            f"{name}_index",
            f"must be the word where {shown(span)} stands in the text, but is {index}.",
        )
    return found[min(found, key=lambda word: (abs(word - index), word))]
