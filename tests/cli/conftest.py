"""Recipes and task files for the verbs' tests."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_material import files_task, rows, write_rows

from kept import keep
from softprompts.cli.main import main

Recipe = Callable[..., str]
Once = Callable[..., tuple[str, Path]]


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


@pytest.fixture(autouse=True)
def once_for_all_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs of all tests load a backbone once, and measure a run's memory once."""
    keep(monkeypatch)


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


@pytest.fixture(scope="session")
def made_before() -> dict[str, tuple[Path, Path]]:
    """Folders that a verb made, and where they stood, by what the verb was given."""
    return {}


@pytest.fixture
def once(recipe, tmp_path, tmp_path_factory, made_before) -> Once:
    """Run a verb on a recipe, or give what it made of it in an earlier test."""

    def run(verb: str, content: Mapping[str, Any], out: str, *options: str) -> tuple[str, Path]:
        path, folder = recipe(content, f"{verb}.yaml"), tmp_path / out
        key = json.dumps([verb, content, out, options]).replace(str(tmp_path), "")
        if key not in made_before:
            assert main([verb, path, "--out", str(folder), *options]) == 0
            made_before[key] = (tmp_path_factory.mktemp("made") / out, tmp_path)
            shutil.copytree(folder, made_before[key][0])
            return path, folder
        kept, place = made_before[key]
        shutil.copytree(kept, folder)
        for file in folder.rglob("*.json"):
            file.write_text(file.read_text().replace(str(place), str(tmp_path)))
        return path, folder

    return run


@pytest.fixture
def finished(capsys, once, run) -> tuple[str, Path]:
    """The recipe and the folder of a finished run."""
    found: tuple[str, Path] = once("train", run, "out")
    capsys.readouterr()
    return found


@pytest.fixture
def interrupted(finished) -> tuple[str, Path]:
    """The recipe and the folder of a run that was killed before its prompt was written."""
    path, out = finished
    (out / "result.json").unlink()
    (out / "prompt.safetensors").unlink()
    return path, out
