"""`softprompts choices`: a run's choices as a picture or as numbers, and the folder untouched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_material import refused, tree

from softprompts.cli.main import main


@pytest.fixture
def run(run: dict[str, Any]) -> dict[str, Any]:
    """A run that chooses a position and a mixture for every input."""
    run["prompt"] = {"method": "adap-ins-vec-pos", "length": 4}
    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user, to stand in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def succeed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    code = main(["choices", *arguments])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def test_a_picture_lies_beside_the_user_and_the_run_is_untouched(capsys, finished, here):
    _, out = finished
    before = tree(out)
    printed = succeed(capsys, str(out))

    assert printed == "choices.svg: position and pool of adap-ins-vec-pos on files, 6 updates\n"
    assert [path.name for path in here.iterdir()] == ["choices.svg"]
    text = (here / "choices.svg").read_text(encoding="utf-8")
    assert ">Position while training</text>" in text
    assert ">good</text>" in text
    assert tree(out) == before


@pytest.mark.parametrize(
    ("name", "start"), [("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG"), ("a.html", b"<!DOCTYPE html>")]
)
def test_the_ending_says_what_is_drawn_and_an_own_picture_is_replaced(
    capsys, finished, here, name, start
):
    _, out = finished
    assert succeed(capsys, str(out), "--out", name).startswith(f"{name}: ")
    first = (here / name).read_bytes()
    succeed(capsys, str(out), "--out", name)

    assert first.startswith(start)
    assert (here / name).read_bytes() == first


def test_json_is_what_the_run_wrote(capsys, finished, here):
    _, out = finished
    found = json.loads(succeed(capsys, str(out), "--json"))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    updates = [line for line in lines if "split" not in line]

    assert found["figure"] is None
    assert list(here.iterdir()) == []
    assert (found["identity"], found["status"]) == (result["identity"], "finished")
    assert found["selected_step"] == result["selected_step"]
    assert [window["first_step"] for window in found["windows"]] == [1, 2, 3, 4, 5, 6]
    for window, update in zip(found["windows"], updates, strict=True):
        assert {key: window[key] for key in ("temperature", "position", "pool")} == {
            key: update[key] for key in ("temperature", "position", "pool")
        }
    assert found["reported"]["position"] == result["choices"]["position"]
    assert found["reported"]["pool"] == result["choices"]["pool"]
    assert [line["last_step"] for line in found["held_out"]] == [2, 4, 6]


def test_json_with_a_place_draws_too(capsys, finished, here):
    _, out = finished
    assert json.loads(succeed(capsys, str(out), "--json", "--out", "a.svg"))["figure"] == "a.svg"
    assert (here / "a.svg").stat().st_size > 1000


def test_a_run_without_an_end_is_drawn_and_said_so(capsys, interrupted, here):
    _, out = interrupted
    assert "6 updates; the run is unfinished\n" in succeed(capsys, str(out))
    with open(out / "metrics.jsonl", "a") as file:
        file.write('{"step"')
    assert "its last line is half written and left out" in succeed(capsys, str(out))


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("a.pdf", "`--out` must end in .svg, .png, .html, but is 'a.pdf'"),
        ("a", "`--out` must end in .svg, .png, .html, but is 'a'"),
        ("../out/a.svg", "must lie outside the run's folder, but is '../out/a.svg'"),
        ("own.svg", "own.svg must be new or an earlier picture, but is another file"),
        ("folder.svg", "folder.svg must be a new or regular file, but is a folder"),
        ("none/a.svg", "none/a.svg could not be written: No such file"),
    ],
)
def test_a_place_that_will_not_do_is_refused(capsys, finished, tmp_path, here, place, text):
    _, out = finished
    (here / "own.svg").write_text("<svg>drawn by hand</svg>")
    (here / "folder.svg").mkdir()
    before = tree(tmp_path)

    refused(capsys, ["choices", str(out), "--out", place], text)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("method", "length"), [("prompt-tuning", 4), ("head-only", 0), ("stable", "text")]
)
def test_a_method_that_selects_nothing_is_refused(
    capsys, recipe, run, tmp_path, here, method, length
):
    run["prompt"] = {"method": method, "length": length}
    run["training"]["learning_rate"] = 0.3 if length else None
    assert main(["train", recipe(run), "--out", str(tmp_path / "out")]) == 0

    refused(capsys, ["choices", str(tmp_path / "out")], f"nothing is selected by '{method}'")
    assert list(here.iterdir()) == []


def test_what_is_no_run_is_refused(capsys, here):
    refused(capsys, ["choices", "nowhere"], "nowhere could not be read: no such folder")
    assert list(here.iterdir()) == []


def test_numbers_import_no_matplotlib_and_drawing_no_torch_and_no_global_plotting(finished, here):
    out = str(finished[1])
    lines = [
        "import sys; from softprompts.cli.main import main",
        f"assert main(['--help']) == main(['choices', {out!r}, '--json']) == 0",
        "print('matplotlib' in sys.modules)",
        f"assert main(['choices', {out!r}]) == 0",
        "print(sorted({'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)))",
    ]
    command = [sys.executable, "-W", "error", "-c", "\n".join(lines)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    printed = found.stdout.splitlines()
    assert (printed.count("False"), printed[-1]) == (1, "[]")
    assert found.stderr == ""
