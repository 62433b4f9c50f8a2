"""Markup that cannot be broken by what it shows: text is escaped unless it is markup already."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from typing import Final, final

_VOID: Final = frozenset({"br", "col", "hr", "meta"})


@final
class Html(str):
    """Text that is markup already, and is not escaped again."""

    __slots__ = ()


Child = str | Iterable[str] | None
"""What may stand inside an element: text, markup, several of them, or nothing."""


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return an element.

    Args:
        name: the element's name.
        children: what stands in it; what is not `Html` is escaped.
        attributes: its attributes; a trailing `_` is dropped, another `_` becomes `-`. `None` and
            `False` leave one out, `True` is one without a value.

    Example:
        >>> tag("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    texts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-")
        texts.append(f" {spelled}" if value is True else f' {spelled}="{_attribute(value)}"')
    opening = f"<{name}{''.join(texts)}>"
    if name in _VOID:
        return Html(opening)
    return Html(f"{opening}{joined(children)}</{name}>")


def block(text: str, label: str) -> Html:
    """Return text as it is written, in a box that scrolls, by keys too, where it is too wide.

    Args:
        text: the text.
        label: what it is, for those who do not see it.
    """
    return tag("pre", text, tabindex="0", role="region", aria_label=label)


def joined(children: Iterable[Child]) -> Html:
    """Return several children, one after the other.

    Args:
        children: text, markup, or several of them.
    """
    return Html("".join(_child(child) for child in children))


def escaped(text: str) -> Html:
    r"""Return text as markup; letters that cannot be printed are shown by their numbers.

    Args:
        text: the text; its line breaks stay.

    Example:
        >>> escaped("<b>\x00")
        '&lt;b&gt;\\x00'
    """
    shown = "".join(
        letter
        if letter.isprintable() or letter in "\n\t"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )
    return Html(html.escape(shown))


def data_link(label: str, file_name: str, content: bytes, kind: str) -> Html:
    """Return a link that saves a file which the page itself holds.

    Args:
        label: the link's text.
        file_name: what the file is called.
        content: its content.
        kind: its media type.
    """
    data = base64.b64encode(content).decode()
    href = f"data:{kind};charset=utf-8;base64,{data}"
    return tag("a", label, href=href, download=file_name)


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return escaped(child)
    return "".join(_child(one) for one in child)


def _attribute(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return escaped(str(value))
