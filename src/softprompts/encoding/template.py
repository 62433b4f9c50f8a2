"""Templates: how a row's fields become text, with the places that matter marked.

A template is a string. `{field}` stands for a field of the row, `{choice}` for the choice being
scored, `{mask}` for the place of the label words and `{sep}` for the border between a text and its
pair; `{{` and `}}` are literal braces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from softprompts.errors import DataError
from softprompts.tasks import templates


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
        return templates.template_fields(self.source)

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


def parse_template(source: str) -> Template:
    """Parse a template.

    Args:
        source: the template's text.

    Returns:
        The parsed template.

    Raises:
        DataError: if braces do not match or a place is not a plain name.

    Example:
        >>> parse_template("{premise} {sep} {hypothesis}").fields
        ('premise', 'hypothesis')
    """
    try:
        pieces = templates.parse_template(source)
    except ValueError as error:
        raise DataError(str(error)) from None
    texts: list[list[Piece]] = [[]]
    for kind, text in pieces:
        if (kind, text) == ("name", "sep"):
            texts.append([])
        else:
            texts[-1].append(Piece(text) if kind == "text" else Piece("", text))
    return Template(source, tuple(tuple(pieces) for pieces in texts))
