"""Real task files, where they are, and writers of small ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[str, Sequence[Any]], Path]

CB_ROWS = [
    {"premise": "It rained.", "hypothesis": "It was wet.", "label": "entailment"},
    {"premise": "It rained.", "hypothesis": "It was dry.", "label": "contradiction"},
    {"premise": "It rained.", "hypothesis": "It was May.", "label": "neutral"},
]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as jsonl below `tmp_path`: mappings as JSON, strings as they are."""

    def _write(name: str, rows: Sequence[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return _write


@pytest.fixture
def cb_folder(tmp_path: Path, write: Write) -> Path:
    """A folder with a small CB, good in every row."""
    for split in ("train", "dev32", "val"):
        write(f"CB/{split}.jsonl", CB_ROWS)
    return tmp_path
