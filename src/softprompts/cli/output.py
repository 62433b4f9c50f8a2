"""What a verb prints: results on standard output, errors on standard error."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from softprompts.errors import RecipeError, SoftPromptsError
from softprompts.threads import choose_threads

_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def visible(text: str) -> str:
    r"""Return a text whose control characters, but ends of lines and tabs, are spelled out.

    Example:
        >>> print(visible("safe\x1b[2J"))
        safe\x1b[2J
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str, style: str = "", *, is_whole: bool = False) -> None:
    """Print a text on standard output, on a terminal in lines that fit and in a style of rich.

    Control characters are made visible. No end of line is put into a text that `is_whole`, to be
    copied as a command is. `NO_COLOR` switches the style off.
    """
    if not sys.stdout.isatty():
        print(visible(text))
        return
    from rich.console import Console
    from rich.text import Text

    console, lines = Console(), visible(text).splitlines()
    if not is_whole:  # no word is broken, so that paths can be copied
        lines = [textwrap.fill(line, console.width, break_long_words=False) for line in lines]
    style = "" if console.no_color else style  # rich would keep bold
    console.print(Text("\n".join(lines), style), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_sections(sections: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Print rows of text, as many cells each, under their headings in columns."""
    for index, (heading, texts) in enumerate(sections.items()):
        rows = [list(map(visible, row)) for row in texts]
        if index:
            print()
        print(heading)
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            print(f"  {'  '.join(cells)}".rstrip())


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in columns; the first two to the left, the others to the right.

    On a terminal, columns at the right that it is too narrow for are left out, and named.
    """
    lines = [list(map(visible, line)) for line in (headings, *rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf
    num_shown = max(3, sum(end - 2 <= room for end in accumulate(width + 2 for width in widths)))
    widths, lines = widths[:num_shown], [line[:num_shown] for line in lines]
    for number, line in enumerate(lines):
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        if not number:
            print("  ".join("─" * width for width in widths))
    if num_shown < len(headings):
        say(f"left out for want of width: {', '.join(headings[num_shown:])}")


def problems_of(error: BaseException) -> list[str]:
    """Return what an error says, one line per problem; those of a recipe begin with its name."""
    if isinstance(error, RecipeError):
        texts = [f"{error.source}: {problem}" for problem in error.problems]
    elif isinstance(error, SoftPromptsError):
        texts = [str(error)]
    else:
        texts = [f"{type(error).__name__}: {error}" if str(error) else type(error).__name__]
    return [" ".join(text.split()) for text in texts]


def print_error(kind: str, problems: Sequence[str], *, as_json: bool) -> None:
    """Print problems on standard error, a line each; where asked, as JSON on standard output."""
    for problem in problems:
        print(f"error: {visible(problem)}", file=sys.stderr)
    if as_json:
        with contextlib.suppress(OSError):  # the error may be that nothing can be printed there
            print_json({"error": {"kind": kind, "problems": list(problems)}})


def announce_threads() -> None:
    """Choose how many threads compute, before torch is imported, and say so on standard error."""
    text = choose_threads()
    if text:
        print(text, file=sys.stderr, flush=True)


def open_streams() -> None:
    """Let standard output and error lead nowhere where the caller has closed them.

    Opened first, so that no file of a run gets their number.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def leave_quietly() -> None:
    """Let the interpreter close a standard output that takes no more, without a word."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_printed() -> bool:
    """Return whether what was printed on standard output has reached its end."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True
