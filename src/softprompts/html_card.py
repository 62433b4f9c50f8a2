"""A few facts as a table, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_CELL = "text-align: left; padding: 0.1em 1em 0.1em 0; background: none"


def html_card(title: str, facts: Mapping[str, object]) -> str:
    """Return facts by name as HTML, every text escaped; those that are `None` are left out."""
    rows = "".join(
        f'<tr><th scope="row" style="{_CELL}; font-weight: normal; opacity: 0.75">{escape(name)}'
        f'</th><td style="{_CELL}">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
        if value is not None
    )
    return f"<div><b>{escape(title)}</b><table>{rows}</table></div>"
