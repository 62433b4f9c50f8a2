"""Templates: how a row's fields become text, with the places that matter marked.

A template is a string. `{field}` stands for a field of the row, `{choice}` for the choice being
scored, `{mask}` for the place of the label words and `{sep}` for the border between a text and its
pair; `{{` and `}}` are literal braces.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum

from softprompts.errors import DataError

RESERVED = ("choice", "mask", "sep")


class Role(IntEnum):
    """What a token is there for; perturbations may touch `FIELD` tokens only."""

    PADDING = 0
    SPECIAL = 1
    TEMPLATE = 2
    FIELD = 3
    MASK = 4
    LABEL = 5


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a template: literal text, or a named place."""

    text: str
    name: str = ""


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
        source: the text it was parsed from.
        texts: the pieces of the first text and, after `{sep}`, of its pair.
    """

    source: str
    texts: tuple[tuple[Piece, ...], ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the row fields in the template, in order, each once."""
        names = (p.name for pieces in self.texts for p in pieces)
        return tuple(dict.fromkeys(n for n in names if n and n not in RESERVED))

    def has(self, name: str) -> bool:
        """Return whether the place `name` occurs."""
        return any(piece.name == name for pieces in self.texts for piece in pieces)

    def values(self, fields: Mapping[str, str], source: str = "") -> dict[str, str]:
        """Return the row's values for the template's fields.

        Raises:
            DataError: if the row lacks one of them.
        """
        for name in self.fields:
            if name not in fields:
                raise DataError(
                    f"template field must be one of {', '.join(fields)}, but is {name!r}.",
                    file=source or None,
                    field=name,
                )
        return {name: fields[name] for name in self.fields}


def parse_template(source: str, allowed: Collection[str] | None = None) -> Template:
    """Parse a template.

    Args:
        source: the template's text.
        allowed: field names that rows have; `None` accepts any.

    Returns:
        The parsed template.

    Raises:
        DataError: if braces do not match, a place is unnamed or unknown, there is more than one
            `{sep}` or `{mask}`, or nothing stands in it.

    Example:
        >>> parse_template("{premise} {sep} {hypothesis}").fields
        ('premise', 'hypothesis')
    """
    texts: list[list[Piece]] = [[]]
    try:
        parsed = list(string.Formatter().parse(source))
    except ValueError as error:
        raise DataError(
            f"template must have matching braces, but is {source!r} ({error})."
        ) from None
    for literal, name, specification, conversion in parsed:
        if literal:
            texts[-1].append(Piece(literal))
        if name is None:
            continue
        if not name.isidentifier() or specification or conversion:
            raise DataError(
                f"template place must be a plain name, but is {{{name}}} in {source!r}."
            )
        if allowed is not None and name not in allowed and name not in RESERVED:
            known = ", ".join([*allowed, *RESERVED])
            raise DataError(
                f"template place must be one of {known}, but is {name!r} in {source!r}."
            )
        if name == "sep":
            texts.append([])
        else:
            texts[-1].append(Piece("", name))
    names = [piece.name for pieces in texts for piece in pieces]
    if len(texts) > 2 or names.count("mask") > 1:
        raise DataError(f"template must have at most one {{sep}} and one {{mask}}: {source!r}.")
    if not all(texts):
        raise DataError(f"template must have something on each side of {{sep}}: {source!r}.")
    return Template(source, tuple(tuple(pieces) for pieces in texts))
