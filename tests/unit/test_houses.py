"""The core works without the lab; the lab tells which extra its libraries are of."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import softprompts
from softprompts.cli import main, options
from softprompts.recipes import component_fields

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

BLOCK = """
import sys

class Blocking:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):  # such as what finds metadata
        return getattr(self.inner, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OTHERS or name.startswith(BLOCKED):
            return None
        return self.inner.find_spec(name, path, target)

OTHERS = ("scipy", "matplotlib", "plotly", "sklearn")  # the last needs the first
BLOCKED = "softprompts.lab"
sys.meta_path = [Blocking(finder) for finder in sys.meta_path]
from softprompts.cli.main import main
"""

IMPORT_ALL = """
import importlib, pkgutil, softprompts

found = list(pkgutil.walk_packages(softprompts.__path__, "softprompts.", onerror=lambda name: None))
names = [one.name for one in found if not one.name.startswith("softprompts.lab")]
assert len(names) > 150, len(names)
for name in names:
    importlib.import_module(name)
"""


TRAIN_AND_EVALUATE = """
assert main(["train", sys.argv[1], "--out", sys.argv[2]]) == 0
BLOCKED = "nothing"  # but the libraries of the lab
sys.exit(main(["evaluate", sys.argv[2]]))
"""


def test_the_core_imports_and_trains_without_the_lab(tmp_path, backbone_folder):
    recipe, out = tmp_path / "run.yaml", tmp_path / "out"
    recipe.write_text(
        f"backbone: {{name: {backbone_folder('bert')}}}\n"
        "task: {name: bundled/sentiment, num_items: 8}\n"
        "training: {steps: 2, batch_size: 4}\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"{BLOCK}{IMPORT_ALL}{TRAIN_AND_EVALUATE}", str(recipe), str(out)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("score ") == 2


def test_only_faces_name_the_lab():
    """The command line and the public names lead to it; nothing else does, at whatever place."""
    source = Path(softprompts.__file__).parent
    for path in source.rglob("*.py"):
        place = path.relative_to(source).as_posix()
        if place.startswith(("lab/", "cli/")) or place == "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = (
                [getattr(node, "module", None) or ""] if isinstance(node, ast.ImportFrom) else []
            )
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            assert not [one for one in names if one.startswith("softprompts.lab")], place


def test_entry_points_are_those_of_the_project():
    assert PROJECT["entry-points"] == {
        main.GROUP: main.ADDED,
        component_fields.GROUP: component_fields.ADDED,
    }


def test_the_extra_has_the_libraries_that_verbs_of_the_lab_ask_for():
    extra = [line.partition(">=")[0] for line in PROJECT["optional-dependencies"]["lab"]]
    assert tuple(extra) == options.LIBRARIES


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
