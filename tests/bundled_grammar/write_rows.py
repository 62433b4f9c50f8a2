"""Write the rows of the bundled tasks: from `tests`, `python -m bundled_grammar.write_rows FOLDER`.

The committed ones lie in `src/softprompts/tasks/bundled`; a test checks that they are what the
grammars here give.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from bundled_grammar.expansion import expand
from bundled_grammar.grammar import Grammar, Split, parse_grammar
from softprompts.tasks.bundled.formats import FORMATS


def load_grammar(name: str) -> Grammar:
    """Return the grammar of a bundled task, such as `bundled/sentiment`."""
    file = name.removeprefix("bundled/").replace("-", "_") + ".yaml"
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return parse_grammar(text, FORMATS[name].labels or texts_of(name), file)


def texts_of(name: str) -> tuple[str, str, str]:
    """Return what one draw of a writing task gives: its field, and two references."""
    return (name.removeprefix("bundled/").replace("polite", "remark"), "first", "second")


def row_files() -> Iterator[tuple[str, str]]:
    """Yield each file's name and content."""
    for name in FORMATS:
        fields = ("premise", "hypothesis") if name == "bundled/entailment" else ("text",)
        for split in get_args(Split):
            rows: list[dict[str, object]] = [
                dict(zip((*fields, "label"), (*row[: len(fields)], row[2]), strict=True))
                for row in expand(
                    load_grammar(name), split, file=name, is_shuffled=bool(FORMATS[name].labels)
                )
            ]
            if FORMATS[name].is_writing:
                rows = [_written(rows[i : i + 3], texts_of(name)) for i in range(0, len(rows), 3)]
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            yield f"{name.removeprefix('bundled/')}-{split}.jsonl", "\n".join(lines) + "\n"


def _written(draw: list[dict[str, object]], names: tuple[str, str, str]) -> dict[str, object]:
    """Return the row that the texts of one draw come to."""
    source, *references = (next(r["text"] for r in draw if r["label"] == name) for name in names)
    return {names[0]: source, "references": references}


if __name__ == "__main__":
    for name, text in row_files():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
