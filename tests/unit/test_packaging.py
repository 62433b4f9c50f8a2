"""What is published: built from the sources alone, it runs what the README shows."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from unit.test_docs import ROOT, blocks, commands

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(*command, **options):
    """Run a command, which must end well, and return what it says."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A new environment with the wheel that the source archive gives.

    Libraries that it needs are those of this environment, whose own copy of the library is hidden.
    """
    place = tmp_path_factory.mktemp("published")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", place, cwd=ROOT)
    (archive,) = place.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(place, filter="data")
    sources = place / archive.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place, cwd=sources)
    (wheel,) = place.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", place / "env")
    python = place / "env" / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel
    )
    (packages,) = (place / "env").glob("lib/python*/site-packages")
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python, packages


@pytest.mark.parametrize("home", ["", "https://example.org/softprompts/blob/main/"])
def test_links_of_the_published_readme_lead_somewhere(home, tmp_path):
    place = tmp_path / "wheel"
    run(
        *(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place),
        env={**os.environ, "SOFTPROMPTS_HOME": home},
    )
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith("/METADATA"))
        about = email.message_from_bytes(file.read(name))
    readme = about.get_payload()
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert all(link.startswith("https://") for link in links)
    assert "stability" in readme
    assert ("https://example.org/softprompts/blob/main/docs/quickstart.md" in links) == bool(home)
    assert bool(about.get_all("Project-URL")) == bool(home)


def test_the_wheel_runs_the_readme(installed, tmp_path):
    python, packages = installed
    readme = (ROOT / "README.md").read_text("utf-8")
    found = [b for b in blocks(readme) if b.language == "python" and b.is_run]
    assert found
    code = "\n".join(b.text for b in found)
    (tmp_path / "readme.py").write_text(f"{code}\nprint(sp.__file__)\n", "utf-8")
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    shown = run(python, tmp_path / "readme.py", cwd=tmp_path, env=clean)
    assert Path(shown.splitlines()[-1]).is_relative_to(packages)
    shell = [b for b in blocks(readme) if b.language == "console" and b.is_run]
    asked = [c for b in shell for c in commands(b.text) if c[0].startswith("softprompts ")]
    assert asked
    for command, lines in asked:
        text = run(python.with_name("softprompts"), *command.split()[1:], cwd=tmp_path, env=clean)
        assert text.splitlines() == lines
    listed = run(python.with_name("softprompts"), "list", "tasks", cwd=tmp_path, env=clean)
    assert "bundled/question-type" in listed


def test_the_readme_says_the_same_with_one_and_two_threads(tmp_path):
    code = "\n".join(
        b.text for b in blocks((ROOT / "README.md").read_text("utf-8")) if b.language == "python"
    )
    said = []
    for number in "12":
        (tmp_path / number).mkdir()
        env = {**os.environ, "OMP_NUM_THREADS": number}
        said.append(run(sys.executable, "-c", code, cwd=tmp_path / number, env=env))
    assert "score=" in said[0]
    assert said[0] == said[1]
