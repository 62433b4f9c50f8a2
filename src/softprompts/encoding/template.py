"""Templates: how a row's fields become text, with the places that matter marked.

A template is a string. `{field}` stands for a field of the row, `{choice}` for the choice being
scored, `{mask}` for the place of the label words, `{prompt}` for a place of prompt rows and `{sep}`
for the border between a text and its pair; `{{` and `}}` are literal braces.

`{prompt}` may stand anywhere, any number of times. It adds no token. The spaces beside it become
one space that belongs to what follows; at the two ends of a template they go. A template with and
without it is then read as the same tokens wherever a space stands beside it.

`{role:user}` begins a turn of a chat, whose form is that of the tokenizer; see `chat.py`.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from softprompts.errors import DataError

PLACES = frozenset({"choice", "mask", "prompt", "sep"})
MARK = "prompt"
"""The place that adds no token: it marks where rows of a prompt stand."""

ROLES = ("system", "user", "assistant")
"""Who may speak a turn of a chat."""

CHAT = "chat"
"""The name of a task's template for the `text` readout in the form of a chat."""

MESSAGES = "{messages}"
"""The template of a task whose rows are chats: turns of their own instead of fields."""


class Role(IntEnum):
    """What a token is there for; perturbations may touch `FIELD` tokens only."""

    PADDING = 0
    SPECIAL = 1
    TEMPLATE = 2
    FIELD = 3
    MASK = 4
    LABEL = 5


TOKEN = "<token>"
"""Stands for the name of a place in pieces that are special tokens; no field is called so."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a template: literal text, or a named place.

    A place that is named `TOKEN` is one special token, spelled by the text.
    """

    text: str
    name: str = ""


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
        source: the text it was parsed from.
        texts: the pieces of the first text and, after `{sep}`, of its pair; of each turn in a chat
            that is not rendered yet.
        roles: who speaks each turn, in a chat that is not rendered yet, else empty.
        has_frame: whether the tokenizer's special tokens stand around it; not so in a chat, whose
            pieces have them.
    """

    source: str
    texts: tuple[tuple[Piece, ...], ...]
    roles: tuple[str, ...] = ()
    has_frame: bool = True

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the row fields in the template, in order, each once."""
        return template_fields(self.source)

    @property
    def num_leading_marks(self) -> int:
        """How many marks stand before everything else."""
        names = [piece.name for piece in self.texts[0]]
        return next((i for i, name in enumerate(names) if name != MARK), len(names))

    def values(self, fields: Mapping[str, str], source: str = "") -> dict[str, str]:
        """Return the row's values for the template's fields, all of which it must have."""
        for name in self.fields:
            if name not in fields:
                raise DataError(
                    "must be present, since the template names it, but the row has "
                    f"{', '.join(map(repr, fields)) or 'nothing'}.",
                    file=source or None,
                    field=name,
                )
        return {name: fields[name] for name in self.fields}


def parse_template(source: str) -> Template:
    """Parse a template; see `template_pieces` for what is refused.

    Example:
        >>> parse_template("{premise} {sep} {hypothesis}").fields
        ('premise', 'hypothesis')
    """
    pieces = template_pieces(source)
    turns: list[list[Piece]] = [[]]
    for kind, text in pieces:
        if kind == "role":
            turns.append([])
        else:
            turns[-1].append(Piece(text) if kind == "text" else Piece("", text))
    roles = tuple(text for kind, text in pieces if kind == "role")
    if roles:
        return Template(source, tuple(tuple(_settled(turn)) for turn in turns[1:]), roles)
    texts: list[list[Piece]] = [[]]
    for piece in _settled(turns[0]):
        if piece.name == "sep":
            texts.append([])
        else:
            texts[-1].append(piece)
    return Template(source, tuple(tuple(pieces) for pieces in texts))


def _settled(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the pieces, with the spaces beside each run of marks as one space behind it."""
    waiting, has_space, is_first = 0, False, True
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        text = piece.text
        if piece.name == MARK:
            waiting += 1
            continue
        if waiting and not piece.name:
            text = text.lstrip(" ")
            has_space |= text != piece.text
            if not text:
                continue
        yield from [Piece("", MARK)] * waiting
        if waiting and has_space and not is_first:
            yield Piece(" ")
        waiting, has_space = 0, False
        if not piece.name and following is not None and following.name == MARK:
            has_space = text != text.rstrip(" ")
            text = text.rstrip(" ")
        if piece.name or text:
            yield Piece(text, piece.name)
            is_first = False
    yield from [Piece("", MARK)] * waiting


def template_pieces(template: str) -> tuple[tuple[str, str], ...]:
    """Cut a template into pieces.

    Returns:
        `("text", literal)`, `("name", name)` and `("role", role)` pairs in order.

    Raises:
        DataError: if a brace has no partner, a name is empty or more than a plain name, or a role
            unknown; so do all below.

    Example:
        >>> template_pieces("{text} It was {mask}.")
        (('name', 'text'), ('text', ' It was '), ('name', 'mask'), ('text', '.'))
    """
    pieces: list[tuple[str, str]] = []
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DataError(f"template {template!r} must have paired braces: {error}.") from None
    for literal, name, spec, conversion in parts:
        if literal:
            pieces.append(("text", literal))
        if name is None:
            continue
        if name == "role" and spec in ROLES and not conversion:
            pieces.append(("role", spec))
            continue
        if spec or conversion or not name.isidentifier():
            raise DataError(
                f"template {template!r} must name plain fields such as {{text}}, or turns such as "
                "{role:user}, but has "
                f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}."
            )
        pieces.append(("name", name))
    return tuple(pieces)


def template_names(template: str) -> tuple[str, ...]:
    """Return the names in a template, in order, each as often as it stands there."""
    return tuple(text for kind, text in template_pieces(template) if kind == "name")


def template_fields(template: str) -> tuple[str, ...]:
    """Return the distinct fields that a template names, without places such as `{mask}`."""
    return tuple(dict.fromkeys(n for n in template_names(template) if n not in PLACES))


def num_marks(template: str) -> int:
    """Return how often a template marks a place for rows of a prompt.

    Example:
        >>> num_marks("{prompt} {premise} {prompt} so {hypothesis}")
        2
    """
    return template_names(template).count(MARK)


def spell_turns(turns: Sequence[Mapping[str, str]]) -> str:
    """Write the turns of a chat, each with a `role` and a template as `content`, as one template.

    Where the last is the assistant's, its content is the beginning of the answer.

    Example:
        >>> spell_turns([{"role": "user", "content": "{text} Good or bad?"}])
        '{role:user}{text} Good or bad?'
    """
    if not turns:
        raise DataError("template must have at least one turn, but is empty.")
    for number, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
            raise DataError(
                f"turn {number} of template must be a mapping with role and content, but is {turn}."
            )
        if turn["role"] not in ROLES:
            raise DataError(
                f"role of turn {number} must be one of {', '.join(ROLES)}, but is {turn['role']!r}."
            )
        if not isinstance(turn["content"], str):
            raise DataError(f"content of turn {number} must be text, but is {turn['content']!r}.")
    return "".join(f"{{role:{turn['role']}}}{turn['content']}" for turn in turns)


def spell_chat(fields: Sequence[str]) -> str:
    """Write the turns of a chat, by who speaks each and its number, as a template.

    Example:
        >>> spell_chat(("system_1", "user_2"))
        '{role:system}{system_1}{role:user}{user_2}'
    """
    return "".join(f"{{role:{name.rpartition('_')[0]}}}{{{name}}}" for name in fields)
