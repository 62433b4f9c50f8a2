"""The support table in docs/support.md: what the contract tests found, cell by cell.

`make support` runs the contracts and writes it. A cell that says something else than the tests of
it, in any run of them, makes the run fail.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "support.md"
CELLS_OF = PAGE.parent / "results" / "support"
WRITE = "SOFTPROMPTS_WRITE_SUPPORT"
COUNTS = PAGE.parent / "results" / "reliability" / "architectures.json"
SECOND = """
## Every text architecture

Each text architecture of the installed transformers, built tiny, with a method for each way in
which methods differ to a backbone (`prompt-tuning`, `residual`, `p-tuning-v2`, `adap-ins-vec-pos`,
`adap-len`, `dept`, `stable`, `zero-shot`, `in-context`, `head-only`, `fine-tuning`, `lora`), with
`linear` and with `cloze` or `text`: every trainable number gets a gradient and nothing else does,
and a batch scores as its inputs one by one; or it is refused, with a reason. Made by `make support`
from `tests/contracts/test_support_table.py`. `@decoder` is the half that writes.

{architectures} architectures, {cells} cells: {right} right, {refused} refused, {wrong} neither.

All cells are right on {whole}.

| architecture | right | refused |
|---|---|---|"""
HEAD = """# Which method works on which backbone

Made by `make support` from the contract tests' own results (`tests/contracts/test_contracts.py`):
every parameter counted as trainable gets a gradient and nothing else does, a batch scores as one by
one, and saved and loaded is exact; all on a tiny model of each architecture, with each readout that
its family has. `yes` is a cell whose tests passed. `—` is a combination that is refused, and a test
sees the refusal.

"""


class Support:
    """Collects what became of each cell."""

    def __init__(self) -> None:
        self.passed: set[tuple[str, str]] = set()
        self.failed: set[tuple[str, str]] = set()
        self.refused: dict[tuple[str, str], str] = {}

    def add(self, name: str, cell: tuple[str, str], is_passed: bool) -> None:
        """Take note of a test; one named for refusals says that the cell is refused."""
        if not is_passed:
            self.failed.add(cell)
        elif "refused" in name:
            self.refused[cell] = name
        else:
            self.passed.add(cell)

    def table(self, methods: list[str], kinds: list[str]) -> str:
        """Return the page."""
        lines = ["| method | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
        for method in methods:
            cells = [self.cell((kind, method)) for kind in kinds]
            lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
        return HEAD + "\n".join(lines) + "\n" + self._notes() + architectures()

    def is_whole(self, methods: list[str], kinds: list[str]) -> bool:
        """Return whether every cell was tested."""
        cells = {(kind, method) for method in methods for kind in kinds}
        return cells <= self.passed | set(self.refused) | self.failed

    def cell(self, cell: tuple[str, str]) -> str:
        """Return what the page must say of a cell."""
        if cell in self.failed:
            return "FAILED"
        return "—" if cell in self.refused else "yes"

    def _notes(self) -> str:
        if not self.refused:
            return ""
        kinds = sorted({kind for kind, _ in self.refused})
        return (
            f"\nRefused on {', '.join(kinds)}: these methods reach into attention, and the "
            "attention of this architecture does not go through transformers' attention interface "
            "(see [backbones](backbones.md)).\n"
        )


def read_cells() -> dict[str, dict[str, str]]:
    """Return what became of each cell of each architecture."""
    parts = [json.loads(path.read_text("utf-8")) for path in sorted(CELLS_OF.glob("*.json"))]
    return {name: cells for part in parts for name, cells in part.items()}


def architectures() -> str:
    """Return the second table, and write its counts where pages are written."""
    found = dict(sorted(read_cells().items()))
    whole = [name for name, cells in found.items() if set(cells.values()) == {"right"}]
    cells = [became for own in found.values() for became in own.values()]
    counts = {
        "architectures": len(found),
        "cells": len(cells),
        "right": cells.count("right"),
        "refused": sum(one != "right" and not one.startswith("WRONG") for one in cells),
        "wrong": sum(one.startswith("WRONG") for one in cells),
    }
    if os.environ.get(WRITE):
        COUNTS.parent.mkdir(exist_ok=True)
        COUNTS.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    lines = [SECOND.format(**counts, whole=", ".join(f"`{name}`" for name in whole))]
    for name, own in found.items():
        if name not in whole:
            reasons: dict[str, list[str]] = defaultdict(list)
            for cell, became in own.items():
                if became != "right":
                    reasons[became].append(cell or "loading")
            said = " ".join(f"{'; '.join(which)}: {why}" for why, which in reasons.items())
            num = list(own.values()).count("right")
            lines.append(f"| `{name}` | {num} of {len(own)} | {said.replace('|', ' ')} |")
    return "\n".join(lines) + "\n"


def read_page() -> dict[tuple[str, str], str]:
    """Return what the page says of each cell of its first table."""
    lines = PAGE.read_text(encoding="utf-8").partition("\n\n## ")[0].splitlines()
    table = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    kinds = [name.strip() for name in table[0][1:]]
    return {
        (kind, method.strip(" `")): cell.strip()
        for method, *cells in table[1:]
        for kind, cell in zip(kinds, cells, strict=True)
    }


def settle(support: Support, methods: list[str], kinds: list[str]) -> str:
    """Write the page where that is asked for, else compare what was tested; say what is wrong."""
    if os.environ.get(WRITE):
        if support.is_whole(methods, kinds):
            PAGE.write_text(support.table(methods, kinds), encoding="utf-8")
        return ""
    tested = support.passed | set(support.refused) | support.failed
    if not tested:
        return ""
    told = read_page()
    wrong = [cell for cell in tested if cell[1] in methods and told.get(cell) != support.cell(cell)]
    if not wrong and PAGE.read_text(encoding="utf-8").endswith(architectures()):
        return ""
    found = f"the contract tests found of {sorted(wrong)}" if wrong else "is kept of architectures"
    return f"{PAGE} must say what {found}: run `make support`"
