"""The public surface: what `softprompts` exports, and that importing it is light."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import softprompts as sp

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")
NAMES = [name for name in sp.__all__ if name != "__version__"]
CLASSES = [name for name in NAMES if name[0].isupper()]


def test_all_is_sorted_and_is_what_can_be_listed():
    assert sp.__all__ == sorted(sp.__all__)
    assert dir(sp) == sp.__all__


def test_all_is_what_type_checkers_see_and_what_is_imported():
    tree = ast.parse(Path(sp.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == NAMES
    assert {n: f"softprompts.{home}" for n, home in sp._MODULES.items()} == seen
    for name, module in seen.items():
        assert getattr(sp, name) is getattr(sys.modules[module], name)


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'load_prompt'"):
        _ = sp.load_prompt


def test_public_names_are_documented():
    for name in NAMES:
        item = getattr(sp, name)
        text = vars(item).get("__doc__") if inspect.isclass(item) else item.__doc__
        assert text, name
        assert not text.startswith(f"{name}("), "made by dataclass"
        assert f"`{name}`" in PAGE


def test_public_members_are_documented():
    for name in CLASSES:
        for member, value in vars(getattr(sp, name)).items():
            function = getattr(value, "__func__", value)
            if not member.startswith("_") and (
                inspect.isfunction(function) or isinstance(value, property)
            ):
                assert function.__doc__, (name, member)


def test_the_page_names_nothing_that_is_not_public():
    cells = re.findall(r"^\| (`[^|]+) \|", PAGE, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(set(named)) == sorted(sp.__all__)
    assert len(named) == len(set(named))


def test_the_page_has_every_error_with_its_built_in_base():
    rows = dict(re.findall(r"^\| `(\w+Error)` \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert sorted(rows) == [name for name in NAMES if name.endswith("Error")]
    for name, base in rows.items():
        error = getattr(sp, name)
        assert issubclass(error, sp.SoftPromptsError)
        assert getattr(builtins, base) in error.__bases__


def test_the_version_is_that_of_the_project_and_in_the_changelog():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert sp.__version__ == project["version"]
    assert f"\n## {sp.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


LIGHT = [
    "import softprompts as sp; sp.__all__; dir(sp)",
    "sp.load_recipe('quickstart'); sp.TrainingConfig(steps=3)",
    "from softprompts.cli.main import main; assert main(['--help']) == 0",
    "assert main(['list']) == 0",
    "assert main(['validate', 'fewglue']) == 0; import softprompts.recipes.json_schema",
]


def test_light_things_import_nothing_heavy():
    heavy = "print(sorted({'torch', 'transformers', 'datasets', 'scipy'} & set(sys.modules)))"
    lines = [f"{code}\n{heavy}" for code in LIGHT]
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "\n".join(["import sys", *lines, "sp.Backbone", heavy]),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    *light, last = [line for line in run.stdout.splitlines() if line.startswith("[")]
    assert light == ["[]"] * len(LIGHT)
    assert "torch" in last
