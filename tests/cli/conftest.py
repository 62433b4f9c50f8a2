"""Recipes, task files and folder contents for the verbs' tests."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

Recipe = Callable[..., str]
Tree = dict[str, str]

GOOD = ("fine", "lovely", "superb", "warm", "bright", "kind")
BAD = ("awful", "grim", "rotten", "cold", "dull", "rude")
THINGS = ("soup", "film", "room", "train")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, so that equal runs have equal bits, and tests do not fight for cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder with a small two-class task for `files`."""
    write_rows(tmp_path / "data" / "train.jsonl", rows(0, 24))
    write_rows(tmp_path / "data" / "val.jsonl", rows(100, 116))
    return tmp_path / "data"


def files_task(data_dir: Path, **more: Any) -> dict[str, Any]:
    """Return a `task` section for the rows of `data_dir`."""
    options = {"train": "train.jsonl", "validation": "val.jsonl", "template": "{text}", **more}
    return {"name": "files", "data_dir": str(data_dir), "options": options}


@pytest.fixture
def run(backbone_folder: Callable[[str], Path], data_dir: Path) -> dict[str, Any]:
    """A small run on the rows of `data_dir`, to be changed and written with `recipe`."""
    return {
        "backbone": {"name": str(backbone_folder("bert"))},
        "task": files_task(data_dir),
        "readout": "linear",
        "prompt": {"method": "prompt-tuning", "length": 4},
        "training": {
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 0.3,
            "readout_learning_rate": 0.1,
            "num_evaluations": 3,
        },
        "seed": 3,
    }


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Write a recipe and return its path as text."""

    def write(content: Mapping[str, Any] | str, name: str = "recipe.yaml") -> str:
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def tree(folder: Path) -> Tree:
    """Return the digest of every file below a folder, by relative path; hidden files too."""
    return {
        str(Path(place, name).relative_to(folder)): hashlib.sha256(
            Path(place, name).read_bytes()
        ).hexdigest()
        for place, _, names in os.walk(folder)
        for name in names
    }


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real SuperGLUE and FewGLUE files; skips where it is absent."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SOFTPROMPTS_TEST_DATA", beside))
    if not (folder / "fewglue").is_dir():
        pytest.skip(f"real task files are absent from {folder}")
    return folder
