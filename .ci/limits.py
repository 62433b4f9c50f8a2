"""Fail on a Python file over 400 lines or a function with over 40 below its docstring; say where.

python .ci/limits.py src
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE, FUNCTION = 400, 40


def too_long(path: Path) -> Iterator[str]:
    """Yield one line for each thing in a file that is too long."""
    text = path.read_text(encoding="utf-8")
    if (lines := text.count("\n")) > FILE:
        yield f"{path}: a file must have at most {FILE} lines, but has {lines}."
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            body = node.body[ast.get_docstring(node) is not None :]
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            if lines > FUNCTION:
                yield (
                    f"{path}:{node.lineno}: `{node.name}` must have at most {FUNCTION} lines "
                    f"below its signature and docstring, but has {lines}."
                )


def main(folders: list[str]) -> int:
    """Print what is too long; return 1 if anything is."""
    paths = [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
    found = [line for path in paths for line in too_long(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
