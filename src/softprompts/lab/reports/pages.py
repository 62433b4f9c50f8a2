"""Pages that open without a network: sections of parts, which templates write as HTML.

Every text is escaped by the templates; only figures are markup already.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from softprompts.lab.reports.tabular import shown_value, to_csv, to_latex


def printable(text: str, kept: str = "") -> str:
    r"""Return a text with the numbers of letters that cannot be printed.

    Example:
        >>> print(printable("one\ntwo"))
        one\ntwo
    """
    return "".join(one if one.isprintable() or one in kept else number_of(one) for one in text)


def number_of(letter: str) -> str:
    """Return the number of a letter, as Python writes it."""
    return letter.encode("unicode_escape").decode()


def short(text: str, longest: int) -> str:
    """Return a text without its middle where it is too long.

    Example:
        >>> short("contradiction", 8)
        'cont…ion'
    """
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[: longest - 1 - half]}…{text[-half:]}"


MAKER: Final = "softprompts figure"
"""What every picture and page says of its origin, near its beginning."""

MOST_ROWS: Final = 24
"""Most rows of a table that stand open; longer tables are folded."""

Kind = Literal[
    "text", "advice", "note", "warning", "heading", "list", "code", "commands", "file",
    "table", "folded-table", "picture", "pictures", "surface", "change", "fold",
]  # fmt: skip


@final
@dataclass(frozen=True)
class Part:
    """Something that stands in a section; `templates/parts.html` has the markup of each kind.

    Attributes:
        kind: what it is.
        content: its text; the texts of a list; commands; a table; the markup of a picture; the
            parts of a fold and of pictures side by side; the bytes of a file; an example that was
            changed.
        title: what a fold is opened by; a file's name; what stands under a surface; what a picture
            or code is, for those who do not see it.
        is_open: whether a fold is open from the beginning.
    """

    kind: Kind
    content: Any
    title: str = ""
    is_open: bool = False


@final
@dataclass(frozen=True)
class Section:
    """A section of a page; `name` is its anchor, `program` what its pictures need, if anything."""

    name: str
    title: str
    parts: Sequence[Part]
    program: str = ""


@final
@dataclass(frozen=True)
class Head:
    """The first screen of a page.

    Attributes:
        kind: what kind of page it is, in two words.
        state: how far it is; nothing where that goes without saying.
        parts: what a reader came for.
        said: what else the page says, as titles and texts.
    """

    kind: str
    title: str
    state: str = ""
    lead: str = ""
    parts: Sequence[Part] = ()
    said: tuple[tuple[str, Sequence[str]], ...] = ()


def page(title: str, head: Head, sections: Sequence[Section]) -> str:
    """Return an HTML page that asks for nothing from outside, and could not.

    No program may run in it but the one that the pictures of a section need, where there is one.
    """
    about = {"title": title, "head": head, "sections": sections, "maker": MAKER}
    program = Markup(next((one.program for one in sections if one.program), ""))
    return _ENVIRONMENT.get_template("page.html").render(about, program=program)


def fragment(title: str, parts: Sequence[Part]) -> str:
    """Return parts as HTML that stands within another page, in the light style."""
    return _ENVIRONMENT.get_template("fragment.html").render(title=title, parts=parts)


def side_by_side(pictures: Sequence[Part], most: int) -> list[Part]:
    """Return pictures side by side; those beyond the first few are folded."""
    rest = pictures[most:]
    fold = [Part("fold", (Part("pictures", rest),), f"{len(rest)} more")] if rest else []
    return [Part("pictures", pictures[:most]), *fold]


def _spelled(value: Any) -> Any:
    """Return what a template writes; letters that cannot be printed become their numbers."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, "\n\t") if is_text else value


def _data(content: bytes | str, kind: str) -> str:
    """Return a link to a file which the page itself holds."""
    whole = content.encode() if isinstance(content, str) else content
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(whole).decode()}"


def _hash(content: str) -> Markup:
    """Return what a policy names a style or program by, so that no other may run."""
    found = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return Markup(f"'sha256-{found}'")


_MARKED: Final = re.compile(r"\[((?:\[[^\[\]]*\]|[^\[\]])*)\]")  # with tokens such as [MASK] within

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("softprompts.lab.reports"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
    finalize=_spelled,
)
_ENVIRONMENT.filters |= {"csv": to_csv, "latex": to_latex, "data": _data, "hash": _hash}
_ENVIRONMENT.filters["pieces"] = _MARKED.split  # every second one stood in brackets
_ENVIRONMENT.globals |= {"shown_value": shown_value, "MOST_ROWS": MOST_ROWS}
