"""The core works without the lab; the lab tells which extra its libraries are of."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from softprompts.cli import lab, main
from softprompts.recipes import registries

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

WITHOUT_LAB = """
import importlib, pkgutil, sys

class Blocking:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):  # such as what finds metadata
        return getattr(self.inner, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OTHERS or name.startswith("softprompts.lab"):
            return None
        return self.inner.find_spec(name, path, target)

OTHERS = ("scipy", "matplotlib", "plotly", "sklearn")  # the last needs the first
sys.meta_path = [Blocking(finder) for finder in sys.meta_path]
import softprompts

found = list(pkgutil.walk_packages(softprompts.__path__, "softprompts.", onerror=lambda name: None))
names = [one.name for one in found if not one.name.startswith("softprompts.lab")]
assert len(names) > 150, len(names)
for name in names:
    importlib.import_module(name)
from softprompts.cli.main import main
sys.exit(main(["train", sys.argv[1], "--out", sys.argv[2]]))
"""


def test_the_core_imports_and_trains_without_the_lab(tmp_path):
    """In a process that finds neither the lab nor its libraries."""
    recipe = tmp_path / "run.yaml"
    recipe.write_text(
        "backbone: {name: minilm}\n"
        "task: {name: bundled/sentiment, num_items: 8}\n"
        "training: {steps: 2, batch_size: 4}\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_LAB, str(recipe), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "score " in run.stdout


def test_entry_points_are_those_of_the_project():
    assert PROJECT["entry-points"] == {
        main.GROUP: main.ADDED,
        registries.GROUP: registries.ADDED,
    }


def test_the_extra_has_the_libraries_that_verbs_of_the_lab_ask_for():
    extra = [line.partition(">=")[0] for line in PROJECT["optional-dependencies"]["lab"]]
    assert tuple(extra) == lab.LIBRARIES


@pytest.mark.parametrize("verb", main.ADDED)
def test_a_verb_of_the_lab_says_what_to_install(monkeypatch, capsys, tmp_path, verb):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "plotly" else find(name)
    )
    more = ["--variant", "a", "--size", "2"] if verb == "ensemble" else []
    assert main.main([verb, str(tmp_path), *more]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "but plotly is not installed: install softprompts with its extra `lab`." in told
