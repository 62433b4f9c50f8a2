"""Text from data, spelled so that pages and figures can show it."""

from __future__ import annotations


def printable(text: str, kept: str = "") -> str:
    r"""Return a text with the numbers of letters that cannot be printed.

    Args:
        text: the text.
        kept: letters that stay as they are.

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

    Args:
        text: the text.
        longest: most letters to return.

    Example:
        >>> short("contradiction", 8)
        'cont…ion'
    """
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[: longest - 1 - half]}…{text[-half:]}"
