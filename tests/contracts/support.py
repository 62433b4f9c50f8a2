"""The support table in docs/support.md: what the contract tests found, cell by cell.

`make support` runs the contracts and writes it. In any run of all contracts, a table that says
something else than the tests makes the run fail.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "support.md"
WRITE = "SOFTPROMPTS_WRITE_SUPPORT"
HEAD = """# Which method works on which backbone

Made by `make support` from the contract tests' own results (`tests/contracts/test_contracts.py`):
every parameter counted as trainable gets a gradient and nothing else does, a batch scores as one by
one, and saved and loaded is exact; all on a tiny model of each architecture, with each readout that
its family has. A cell is the number of tests that passed. `—` is a combination that is refused,
and a test sees the refusal.

"""


class Support:
    """Collects what became of each cell."""

    def __init__(self) -> None:
        self.passed: dict[tuple[str, str], int] = defaultdict(int)
        self.failed: set[tuple[str, str]] = set()
        self.refused: dict[tuple[str, str], str] = {}

    def add(self, name: str, cell: tuple[str, str], is_passed: bool) -> None:
        """Take note of a test; one named for refusals says that the cell is refused."""
        if not is_passed:
            self.failed.add(cell)
        elif "refused" in name:
            self.refused[cell] = name
        else:
            self.passed[cell] += 1

    def table(self, methods: list[str], kinds: list[str]) -> str:
        """Return the page."""
        lines = ["| method | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
        for method in methods:
            cells = [self._cell((kind, method)) for kind in kinds]
            lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
        return HEAD + "\n".join(lines) + "\n" + self._notes()

    def is_whole(self, methods: list[str], kinds: list[str]) -> bool:
        """Return whether every cell was tested."""
        cells = {(kind, method) for method in methods for kind in kinds}
        return cells <= set(self.passed) | set(self.refused) | self.failed

    def _cell(self, cell: tuple[str, str]) -> str:
        if cell in self.failed:
            return "FAILED"
        return "—" if cell in self.refused else str(self.passed[cell])

    def _notes(self) -> str:
        if not self.refused:
            return ""
        kinds = sorted({kind for kind, _ in self.refused})
        return (
            f"\nRefused on {', '.join(kinds)}: these methods reach into attention, and the "
            "attention of this architecture does not go through transformers' attention interface "
            "(see [backbones](backbones.md)).\n"
        )


def settle(support: Support, methods: list[str], kinds: list[str]) -> str:
    """Write the page where that is asked for, else compare it; return what is wrong."""
    if not support.is_whole(methods, kinds):
        return ""
    text = support.table(methods, kinds)
    if os.environ.get(WRITE):
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        return f"{PAGE} must say what the contract tests found: run `make support`"
    return ""
