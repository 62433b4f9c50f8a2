"""A run whose backbone lies elsewhere than when it was trained."""

from __future__ import annotations

import json
import shutil

import pytest
from cli_material import write_rows

import softprompts as sp
from softprompts.cli import main as command
from softprompts.cli.main import main


@pytest.fixture
def moved(capsys, recipe, run, tmp_path, backbone_folder):
    """Return the folder of a run, its score, and where its backbone was moved."""
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(backbone_folder("bert"), first)
    run["backbone"]["name"] = str(first)
    assert main(["train", recipe(run), "--out", str(tmp_path / "out"), "--json"]) == 0
    score = json.loads(capsys.readouterr().out)["score"]
    first.rename(second)
    return tmp_path / "out", score, second


def test_the_error_says_how_to_name_another_place(capsys, moved):
    folder, _, _ = moved
    assert main(["evaluate", str(folder)]) == 2
    text = capsys.readouterr().err
    assert "first" in text
    assert "--backbone, or `backbone` of `load`, names another place." in text


def test_it_is_read_from_there(capsys, moved, tmp_path):
    folder, score, place = moved
    assert main(["evaluate", str(folder), "--backbone", str(place), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == score
    write_rows(tmp_path / "new.jsonl", [{"text": "fine"}])
    files = ["--input", str(tmp_path / "new.jsonl"), "--output", str(tmp_path / "labels.jsonl")]
    assert main(["predict", str(folder), *files, "--backbone", str(place)]) == 0
    (line,) = (tmp_path / "labels.jsonl").read_text().splitlines()
    assert sp.load(folder, place).predict(["fine"]) == [json.loads(line)["label"]]


def test_other_weights_are_refused(capsys, moved, backbone_folder):
    folder, _, _ = moved
    assert main(["evaluate", str(folder), "--backbone", str(backbone_folder("gpt2"))]) == 2
    assert "was trained on backbone weights" in capsys.readouterr().err


def test_an_interrupt_that_an_import_made_an_error_is_one(capsys, monkeypatch):
    def interrupted(arguments):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ModuleNotFoundError("Could not import module 'BertModel'") from error

    monkeypatch.setattr(command, "_run", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
