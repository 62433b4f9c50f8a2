"""A template as it is read by itself, and behind demonstrations: plain text, or turns of a chat.

The form of a chat is the tokenizer's own. Places are put through it as letters of a private range,
so that what a field holds can neither change the form nor spell a special token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, final

from softprompts.encoding.template import TOKEN, Piece, Template
from softprompts.errors import DataError

_FIRST_LETTER = 0xE000  # of the range that Unicode leaves to private use
_CLOSING = "\n\n"


@final
@dataclass(frozen=True)
class Form:
    """How a template is read.

    Behind demonstrations that is `head`, then `item`, an answer and `closing` of each, then `item`.

    Attributes:
        whole: the template by itself.
        head: what stands in front of the first demonstration.
        item: the template behind it.
        closing: what ends a demonstration.
        tail: literal text that an answer follows; it tells how the answer begins.
        lead: white space between the two; it belongs to the answer.
    """

    whole: Template
    head: Template
    item: Template
    closing: Template
    tail: str = ":"
    lead: str = " "


def plain_form(template: Template) -> Form:
    """Return the form of a template without turns: demonstrations are set apart by a blank line."""
    nothing = replace(template, texts=((),), has_frame=False)
    return Form(template, nothing, template, replace(nothing, texts=((Piece(_CLOSING),),)))


def chat_form(template: Template, tokenizer: Any) -> Form:
    """Return the form of a template with turns, as the tokenizer's chat template writes them.

    That must write each turn once, in order, and the same for each round, or it is a `DataError`.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "template must have no turns for a tokenizer without a chat template, but is "
            f"{template.source!r}."
        )
    chat = _Chat(template, tokenizer)
    alone, once, twice = (chat.write(rounds) for rounds in (0, 1, 2))
    before, _, behind = once.partition(chat.answer)
    lead = before.removeprefix(alone)
    item = _common_end(alone, behind, chat.tokens)
    head, closing = alone.removesuffix(item), behind.removesuffix(item)
    answered = item + lead + chat.answer + closing
    is_regular = item and once == head + answered + item and twice == head + 2 * answered + item
    if lead.strip() or not is_regular:
        raise DataError(
            "the tokenizer's chat template must write each turn once, in order and alike, but does "
            f"not: {once!r:.200}."
        )
    texts = [chat.cut(text) for text in (alone, head, item, closing)]
    if [piece for piece in texts[0] if piece.name not in ("", TOKEN)] != chat.places:
        raise DataError(
            "the tokenizer's chat template must keep what is said in a turn, but does not: "
            f"{alone!r:.200}."
        )
    last = texts[0][-1]
    parts = [replace(template, texts=(pieces,), roles=(), has_frame=False) for pieces in texts]
    tail = "" if last.name else last.text
    return Form(parts[0], parts[1], parts[2], parts[3], tail, lead)


class _Chat:
    """Writes a template's turns, each place as one letter."""

    def __init__(self, template: Template, tokenizer: Any) -> None:
        self.places = [piece for turn in template.texts for piece in turn if piece.name]
        self.tokenizer = tokenizer
        letters = map(chr, count(_FIRST_LETTER))
        self.answer = next(letters)
        self.pieces = dict(zip(letters, self.places, strict=False))
        names = {*tokenizer.all_special_tokens}
        names |= {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        self.tokens = sorted(names, key=len, reverse=True)
        written = iter(self.pieces)
        self.turns = [
            (role, "".join(next(written) if piece.name else piece.text for piece in turn))
            for role, turn in zip(template.roles, template.texts, strict=True)
        ]

    def write(self, num_rounds: int) -> str:
        """Return the conversation with as many answered rounds before the last one."""
        system = [turn for turn in self.turns if turn[0] == "system"]
        turns = self.turns[len(system) :]
        start = turns.pop()[1] if turns[-1][0] == "assistant" else ""
        space = " " if start and not start[-1].isspace() else ""
        answer = ("assistant", start + space + self.answer)
        said = [*system, *[*turns, answer] * num_rounds, *turns]
        text: str = self.tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in said],
            tokenize=False,
            add_generation_prompt=True,
        )
        return text + start

    def cut(self, text: str) -> tuple[Piece, ...]:
        """Return written text as pieces: literal text, places and special tokens."""
        named = "|".join(map(re.escape, [*self.pieces, *self.tokens]))
        pieces = [part for part in re.split(f"({named})", text) if part]
        plain = {part: Piece(part, TOKEN if part in self.tokens else "") for part in pieces}
        return tuple(self.pieces.get(part, plain[part]) for part in pieces)


def _common_end(first: str, second: str, tokens: Sequence[str]) -> str:
    """Return what two texts end with alike, from a special token on that stands before places."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    size = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    end = first[len(first) - size :]
    place = next((i for i, letter in enumerate(end) if ord(letter) >= _FIRST_LETTER), 0)
    found = [start for start in (end.find(token, 0, place) for token in tokens) if start >= 0]
    return end[min(found) :] if found else end


def filled(template: Template, values: Mapping[str, str]) -> Template:
    """Return a template with its places filled in for good; those without a value stay."""
    texts = tuple(
        tuple(Piece(values[p.name]) if p.name in values else p for p in text)
        for text in template.texts
    )
    return replace(template, texts=texts)
