"""Rows, task sections and folder contents for the verbs' tests."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from softprompts.cli.main import main
from softprompts.training import member

GOOD = ("fine", "lovely", "superb", "warm", "bright", "kind")
BAD = ("awful", "grim", "rotten", "cold", "dull", "rude")
THINGS = ("soup", "film", "room", "train")


def rows(first: int, last: int, *, has_labels: bool = True) -> list[dict[str, Any]]:
    """Return rows of a small two-class task, the classes in turn."""
    found = []
    for index in range(first, last):
        words, label = ((GOOD, "good"), (BAD, "bad"))[index % 2]
        text = f"the {THINGS[index % 4]} was {words[index % 6]} {'and so on ' * (index % 3)}"
        found.append({"text": text.strip(), **({"label": label} if has_labels else {})})
    return found


def write_rows(path: Path, content: Sequence[Mapping[str, Any] | str]) -> Path:
    """Write rows as jsonl: mappings as JSON, strings as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in content]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def files_task(data_dir: Path, **more: Any) -> dict[str, Any]:
    """Return a `task` section for the rows of `data_dir`."""
    options = {"train": "train.jsonl", "validation": "val.jsonl", "template": "{text}", **more}
    return {"name": "files", "data_dir": str(data_dir), "options": options}


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, by relative path; hidden files too."""
    return {
        str(Path(place, name).relative_to(folder)): hashlib.sha256(
            Path(place, name).read_bytes()
        ).hexdigest()
        for place, _, names in os.walk(folder)
        for name in names
    }


def printed(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    """Run a verb with --json and return what it printed."""
    capsys.readouterr()
    code = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], *texts: str) -> None:
    """Run a verb and check that it says one line per text, which holds it, and nothing else."""
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert code == 2, captured
    assert captured.out == ""
    assert len(lines) == len(texts), captured.err
    for line, text in zip(lines, texts, strict=True):
        assert line.startswith("error: ")
        assert text in line


def changed(run: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with dotted fields set."""
    found: dict[str, Any] = copy.deepcopy(dict(run))
    for field, value in changes.items():
        *way, last = field.split(".")
        node = found
        for part in way:
            node = node.setdefault(part, {})
        node[last] = value
    return found


@contextmanager
def asking(name: str) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """Yield what sends a request to a server of this folder, and returns its answer."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name(name))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        into, out_of = process.stdin, process.stdout

        def request(about: dict[str, Any]) -> Any:
            into.write(json.dumps(about) + "\n")
            into.flush()
            return json.loads(out_of.readline())

        yield request
        into.close()
        assert process.wait(timeout=600) == 0


def interrupted(arguments: list[str], stop: int) -> int:
    """Run a verb, interrupt it at an update, and return its exit code."""
    real, count = member.Member.update, 0

    def update(self: Any, *args: Any) -> None:
        nonlocal count
        real(self, *args)
        count += 1
        if count == stop:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(member.Member, "update", update)
        return main(arguments)
