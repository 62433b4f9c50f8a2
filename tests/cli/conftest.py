"""Recipes and task files for the verbs' tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_material import files_task, rows, write_rows

from softprompts.cli.main import main

Recipe = Callable[..., str]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, so that equal runs have equal bits, and tests do not fight for cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def no_lines_by_time() -> Iterator[None]:
    """No line of progress because time has passed: slow machines print what fast ones do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softprompts.cli.progress.LINE_SECONDS", threading.TIMEOUT_MAX)
        yield


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder with a small two-class task for `files`."""
    write_rows(tmp_path / "data" / "train.jsonl", rows(0, 24))
    write_rows(tmp_path / "data" / "val.jsonl", rows(100, 116))
    return tmp_path / "data"


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


@pytest.fixture
def finished(capsys, recipe, run, tmp_path) -> tuple[str, Path]:
    """The recipe and the folder of a finished run."""
    path = recipe(run, "first.yaml")
    assert main(["train", path, "--out", str(tmp_path / "out")]) == 0
    return path, tmp_path / "out"


@pytest.fixture
def interrupted(finished) -> tuple[str, Path]:
    """The recipe and the folder of a run that was killed before its prompt was written."""
    path, out = finished
    (out / "result.json").unlink()
    (out / "prompt.safetensors").unlink()
    return path, out
