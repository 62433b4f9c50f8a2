"""Write the page of what was damaged, killed and refused from the committed counts.

    python docs/results/write_reliability.py

Reads all of `docs/results/reliability/*.json`; writes `docs/reliability.md`. A file may have a
`title`, a text `about` and `rows`, which become a table; its other entries are listed, and those
that hold entries themselves become tables of counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
COUNTS, PAGE = DOCS / "results" / "reliability", DOCS / "reliability.md"
HEAD = """# Reliability

What the library answers to damaged input, kills and shortages, by count. Each table is written by a
program of the repository; [security](security.md) says what is read and never run.
"""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table; a row may lack a column."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[shown(row.get(column, 0)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line).replace('_', ' ')} |" for line in lines)


def shown(value: Any) -> str:
    """Return a value as a cell shows it."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def section(name: str, content: Mapping[str, Any]) -> str:
    """Return the section of one file of counts."""
    parts = [f"## {content.get('title', name.capitalize())}", content.get("about", "")]
    if "rows" in content:
        parts.append(table(content["rows"]))
    for key, value in content.items():
        if key in ("title", "about", "rows"):
            continue
        if isinstance(value, Mapping):
            rows = [
                {key: one, **(held if isinstance(held, Mapping) else {"number": held})}
                for one, held in value.items()
            ]
            parts.append(table(rows))
        elif isinstance(value, list):
            parts.append(f"{key}: {len(value)}" + "".join(f"\n- {one}" for one in value))
        else:
            parts.append(f"{key}: {shown(value)}")
    return "\n\n".join(part for part in parts if part)


def page(folder: Path = COUNTS) -> str:
    """Return the whole page."""
    files = sorted(folder.glob("*.json"))
    sections = [section(f.stem, json.loads(f.read_text(encoding="utf-8"))) for f in files]
    return "\n\n".join([HEAD.strip(), *sections]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
