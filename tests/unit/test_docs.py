"""The documentation says what is so: examples run, tables are current, names and links exist."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

import softprompts as sp
from softprompts.cli.main import build_app, main, verbs
from softprompts.errors import UnknownNameError
from softprompts.recipes.component_fields import component_kinds, component_registry
from softprompts.recipes.field_table import MARKED, refreshed, table
from softprompts.recipes.loading import load_recipe, shipped_recipes
from softprompts.recipes.presets import METHODS
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.study import StudyConfig
from softprompts.tasks.registry import TASKS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES += sorted(DOCS.rglob("*.md"))
TRAINING = {"README.md", "docs/methods/p-tuning.md"}
TRAINING |= {
    f"docs/{name}.md"
    for name in ("choices", "ensembles", "multitask", "python", "quickstart", "tasks", "writing")
}
"""Pages whose examples train for long; they are run with the slow tests."""

_FENCE = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:src|tests|schema|docs|\.ci)/[\w./-]*)`")
_NUMBER = re.compile(r"\b[0-9a-f]{16}\b|\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its first line and the comment above it."""

    language: str
    text: str
    line: int
    mark: str

    @property
    def is_run(self) -> bool:
        return not self.mark.startswith("not run: ")


def blocks(text: str) -> list[Block]:
    return [
        Block(found[2], found[3], text.count("\n", 0, found.start(3)), found[1] or "")
        for found in _FENCE.finditer(text)
    ]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a console block, each with the output that is shown."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def with_blocks(*languages: str) -> list[Path]:
    return [p for p in PAGES if {b.language for b in blocks(p.read_text())} & {*languages}]


def masked(text: str) -> str:
    return _NUMBER.sub("#", text)


def run_command(command: str, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command and compare what is shown; numbers may differ, errors may not."""
    capsys.readouterr()
    code = main(shlex.split(command)[1:])
    output, errors = capsys.readouterr()
    wrong = [line for line in shown if line.startswith("error: ")]
    if wrong:
        assert (code, errors.splitlines()) == (2, wrong), command
        return
    assert code == 0, f"{command}: {errors}"
    lines = [masked(line) for line in output.splitlines()]
    places = [lines.index(masked(line)) for line in shown]
    assert places == sorted(places), command


def run_examples(found: list[Block], page: str, capsys: pytest.CaptureFixture[str]) -> int:
    """Run the examples of a page in order, in this folder; return how many ran."""
    names: dict[str, object] = {}
    num_run = 0
    for block in found:
        if block.mark.startswith("file: "):
            Path(block.mark.removeprefix("file: ")).write_text(block.text, "utf-8")
        elif block.language == "python":
            code = compile("\n" * block.line + block.text, page, "exec")
            if block.is_run:
                exec(code, names)
                num_run += 1
        elif block.language == "console" and block.is_run:
            for command, shown in commands(block.text):
                if command.startswith("softprompts "):
                    run_command(command, shown, capsys)
                    num_run += 1
    return num_run


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if name_of(page) in TRAINING else ())
        for page in with_blocks("python", "console")
    ],
    ids=name_of,
)
def test_examples_of_a_page_run_in_order(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = blocks(page.read_text("utf-8"))
    is_to_run = any(
        block.is_run and (block.language == "python" or "$ softprompts " in block.text)
        for block in found
        if block.language in ("python", "console") and not block.mark.startswith("file: ")
    )
    assert (run_examples(found, str(page), capsys) > 0) == is_to_run


def check_types(files: list[Path], folder: Path) -> list[str]:
    """Return what mypy finds with pydantic's plugin, but not strict."""
    settings = folder / "mypy.ini"
    lines = ["[mypy]", "plugins = pydantic.mypy", "ignore_missing_imports = true"]
    settings.write_text("\n".join([*lines, "[mypy-transformers.*]", "follow_imports = skip"]))
    options = ["--config-file", settings, "--cache-dir", folder, "--no-error-summary"]
    found = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, [*options, *files])],
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert not found.stderr
    return found.stdout.splitlines()


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_made(tmp_path):
    source = DOCS / "notebooks" / "quickstart.ipynb"
    pytest.importorskip("nbconvert", reason="the extra `notebook` is not installed")
    assert not any(cell.get("outputs") for cell in json.loads(source.read_text())["cells"])
    shutil.copy(source, tmp_path)
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace"]
    subprocess.run([*command, source.name], cwd=tmp_path, check=True, timeout=800)
    cells = json.loads((tmp_path / source.name).read_text())["cells"]
    data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    shown = ["".join(one["text/html"]) for one in data if "text/html" in one]
    wanted = ("prompt-tuning on bundled/sentiment", "Take ", "Ensemble(2 members", "Loss around")
    assert all(text in one for text, one in zip(wanted, shown, strict=True))
    assert sum("image/png" in one for one in data) == 1


@pytest.mark.slow
def test_types_hold_in_the_code_of_the_docs(tmp_path):
    files = []
    for page in with_blocks("python"):
        lines: list[str] = []
        for block in blocks(page.read_text("utf-8")):
            if block.language == "python":
                lines += [""] * (block.line - len(lines)) + block.text.splitlines()
        files.append(tmp_path / f"{re.sub(r'[^a-z0-9]', '_', name_of(page)[:-3].lower())}.py")
        files[-1].write_text("\n".join(lines) + "\n", "utf-8")
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import softprompts as sp\n\nsp.PromptConfig(length='ten')\n", "utf-8")
    (found,) = check_types([*files, wrong], tmp_path)
    assert 'wrong.py:3: error: Argument "length"' in found


@pytest.mark.parametrize(
    ("language", "text", "match"),
    [
        ("python", "assert 1 + 1 == 3, 'no sum'", "no sum"),
        ("console", "$ softprompts list methods\nno such line", "'no such line' is not in list"),
        ("console", "$ softprompts list methodz", "softprompts list methodz: error: kind must be"),
        ("console", "$ softprompts list tasks\nerror: none", "softprompts list tasks"),
    ],
)
def test_an_example_that_is_wrong_is_noticed(capsys, language, text, match):
    (block,) = blocks(f"```{language}\n{text}\n```\n")
    with pytest.raises((AssertionError, ValueError), match=match):
        run_examples([block], "page", capsys)


@pytest.mark.parametrize("page", with_blocks("console"), ids=name_of)
def test_every_command_parses(page):
    app = typer.main.get_command(build_app())
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    for block in blocks(page.read_text("utf-8")):
        if block.language != "console":
            continue
        for command, _ in commands(block.text):
            program, *arguments = shlex.split(command)
            if program == "make":
                assert set(arguments) <= set(targets[1].split()), command
            elif program == "softprompts" and arguments != ["--version"]:
                group = app.make_context("softprompts", list(arguments))
                verb, rest = arguments[0], list(arguments[1:])
                app.get_command(group, verb).make_context(verb, rest, parent=group)
            elif program == "python":
                assert arguments[0] == "-m" or (ROOT / arguments[0]).is_file(), command
            else:
                assert program in ("pip", "softprompts"), command


def test_a_command_that_does_not_parse_is_noticed():
    app = typer.main.get_command(build_app())
    group = app.make_context("softprompts", ["train", "x", "--oot", "y"])
    with pytest.raises(Exception, match="No such option: --oot"):
        app.get_command(group, "train").make_context("train", ["x", "--oot", "y"], parent=group)


def test_every_yaml_block_is_a_valid_recipe(tmp_path):
    for page in PAGES:
        for block in blocks(page.read_text("utf-8")):
            if block.language == "yaml":
                path = tmp_path / f"{page.stem}.yaml"
                path.write_text(block.text, "utf-8")
                assert isinstance(load_recipe(path), RunConfig | StudyConfig), (page, block.line)


def test_shipped_recipes_are_documented():
    text = "".join(page.read_text("utf-8") for page in DOCS.rglob("*.md"))
    assert [name for name in shipped_recipes() if name not in text] == []


def test_the_readme_example_is_short():
    (example,) = [b for b in blocks((ROOT / "README.md").read_text()) if b.language == "python"]
    assert example.is_run
    assert len(example.text.splitlines()) <= 15


@pytest.mark.parametrize(("name", "most"), [("README.md", 150), ("CONTRIBUTING.md", 80)])
def test_pages_are_short(name, most):
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= most


def test_tables_are_current():
    """Make them again with `python -m softprompts.recipes.field_table docs`."""
    for page in PAGES:
        text = page.read_text("utf-8")
        assert refreshed(text) == text, page
        assert text.count("<!-- table ") == len(MARKED.findall(text)), page


def test_a_stale_table_is_noticed():
    page = (DOCS / "recipes.md").read_text("utf-8")
    stale = page.replace("| `null` | of the prompt's rows", "| `0.3` | of the prompt's rows")
    assert stale != page
    assert refreshed(stale) == page


def test_an_unknown_table_is_refused():
    with pytest.raises(UnknownNameError, match=r"'trainig'\. Did you mean 'training'"):
        table("trainig")


def slugs(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def links(page: Path) -> list[tuple[str, Path, str]]:
    """Return the internal links of a page: as written, the file, and the heading."""
    found = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if "://" not in link:
            place, _, anchor = link.partition("#")
            found.append((link, (page.parent / place).resolve() if place else page, anchor))
    return found


def test_internal_links_lead_somewhere():
    for page in PAGES:
        for link, target, anchor in links(page):
            assert target.is_file(), (page, link)
            assert not anchor or anchor in slugs(target.read_text("utf-8")), (page, link)


def test_files_that_are_named_exist():
    named = [(page, path) for page in PAGES for path in _PATH.findall(page.read_text("utf-8"))]
    assert [(page, path) for page, path in named if not (ROOT / path).exists()] == []


def test_every_page_can_be_reached_from_the_readme():
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        more = {target for _, target, _ in links(page) if target.suffix == ".md"}
        waiting += sorted(more - reached - set(waiting))
    assert reached == set(PAGES)


def test_every_registered_name_is_documented():
    text = "".join(_COMMENT.sub("", page.read_text("utf-8")) for page in DOCS.rglob("*.md"))
    registries = [component_registry(kind) for kind in component_kinds() if kind != "backbones"]
    names = [name for registry in [*registries, TASKS] for name in registry.names()]
    assert len(names) > 40
    assert [name for name in names if f"\n| `{name}` |" not in text] == []
    backbones = (DOCS / "backbones.md").read_text("utf-8")
    assert all(f"`{name}`" in backbones for name in component_registry("backbones").names())


def test_every_axis_of_a_shape_is_in_the_notation():
    text = (DOCS / "notation.md").read_text("utf-8")
    defined = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    used = set()
    for file in (ROOT / "src").rglob("*.py"):
        for shape in re.findall(r"Shapes?\b[^`.]*`\(([^`]+)\)`", file.read_text("utf-8")):
            used |= set(re.findall(r"[a-z]+", shape))
    assert {"batch", "tokens", "length", "hidden", "labels"} <= used
    assert used - defined == set()


def test_methods_have_a_page_each_and_a_line_in_the_readme():
    parts = ["Idea", "Formula", "Usage", "What is logged", "Settings", "Differences", "Parity"]
    assert {page.stem for page in (DOCS / "methods").glob("*.md")} == set(METHODS)
    readme = (ROOT / "README.md").read_text("utf-8")
    lines = [line for line in readme.splitlines() if line.startswith("| [`")]
    linked = [
        n for line in lines for n in re.findall(r"\[`([\w-]+)`\]\(docs/methods/\1\.md\)", line)
    ]
    assert linked == list(METHODS)
    for page in (DOCS / "methods").glob("*.md"):
        headings = re.findall(r"^## (.+)$", page.read_text("utf-8"), re.MULTILINE)
        assert headings == [*parts, "Results"], page.name


def test_every_command_and_option_is_documented():
    text = (DOCS / "cli.md").read_text("utf-8")
    app = typer.main.get_command(build_app())
    group = app.make_context("softprompts", ["list"])
    for verb in verbs():
        assert f"| `softprompts {verb}" in text
        for parameter in app.get_command(group, verb).params:
            for option in parameter.opts:
                assert not option.startswith("--") or option == "--help" or option in text, option


@pytest.mark.parametrize("name", sorted(path.stem for path in (DOCS / "results").glob("*.py")))
def test_what_writes_pages_can_be_imported(name):
    assert importlib.import_module(name).__doc__


def modules_with_examples() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages(sp.__path__, "softprompts.")]
    files = {name: ROOT / "src" / Path(*name.split(".")).with_suffix(".py") for name in names}
    return [n for n, file in files.items() if file.exists() and ">>> " in file.read_text("utf-8")]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_are_true(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_python_blocks_in_docstrings_run():
    texts = [getattr(sp, name).__doc__ or "" for name in sp.__all__]
    codes = [code for text in texts for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    assert codes
    for code in codes:
        exec("if True:\n" + code, {"sp": sp})
