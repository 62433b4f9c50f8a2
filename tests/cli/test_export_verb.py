"""`softprompts export`: what it says, writes and refuses."""

from __future__ import annotations

import json

import pytest
from cli_material import refused, tree

from softprompts.cli.main import main
from softprompts.errors import StorageError
from softprompts.interop.destination import new_places


@pytest.fixture
def run(backbone_folder, run):
    """A run whose task a language model does by itself."""
    backbone = {"name": str(backbone_folder("gpt2"))}
    options = {**run["task"]["options"], "template": "{text} It was"}
    options |= {"verbalizer": {"good": "good", "bad": "bad"}}
    training = {k: v for k, v in run["training"].items() if k != "readout_learning_rate"}
    task = {**run["task"], "options": options}
    return {**run, "backbone": backbone, "task": task, "readout": "text", "training": training}


def test_the_run_is_left_as_it_is_and_the_folder_is_told(capsys, finished, tmp_path):
    _, out = finished
    before, place = tree(out), tmp_path / "words"
    capsys.readouterr()
    assert main(["export", str(out), "--to", "vocabulary", "--out", str(place), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kept = json.loads((place / "softprompts.json").read_text())
    assert told == {"to": "vocabulary", "out": str(place), "gguf": None, **kept}
    assert tree(out) == before
    assert kept["answers"] == {"good": "good", "bad": "bad"}
    again = ["export", str(out), "--to", "vocabulary", "--out", str(place)]
    refused(capsys, again, "must be a new or empty folder, but holds chat_template.jinja")
    assert main([*again[:-1], str(tmp_path / "more")]) == 0
    captured = capsys.readouterr()
    assert f"vocabulary of files in {tmp_path / 'more'}\nlogits differ" in captured.out
    assert "Writing" not in captured.err


def test_wrong_options_are_refused_in_a_line(capsys, finished, tmp_path):
    _, out = finished
    before = sorted(tmp_path.iterdir())
    place = str(tmp_path / "new")
    start = ["export", str(out), "--out", place, "--to"]
    refused(capsys, [*start, "onnx"], "`--to` must be one of vocabulary, peft, embeds, but is 'on")
    refused(
        capsys, [*start, "peft", "--gguf", "a.gguf"], "`--gguf` must be left out with --to peft"
    )
    refused(capsys, [*start, "peft", "--task", "a"], "`--task` must be left out with --to peft, wh")
    refused(capsys, [*start, "vocabulary", "--task", "a"], "`task` must be one of")
    gguf = ["--gguf", str(tmp_path / "a.gguf")]
    refused(capsys, [*start, "vocabulary", *gguf], "must be llama for --gguf, but is 'gpt2'")
    (tmp_path / "a.gguf").write_text("mine")
    refused(capsys, [*start, "vocabulary", *gguf], "a.gguf must be a new file, but is there")
    (tmp_path / "a.gguf").unlink()
    inside = ["export", str(out), "--to", "peft", "--out", str(out / "a")]
    refused(capsys, inside, "`--out` must lie outside the run's folder")
    missing = ["export", str(tmp_path / "no"), "--to", "peft", "--out", place]
    refused(capsys, missing, "no such folder")
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_that_tokenizers_find_full_is_said_in_one_line(tmp_path):
    """They raise a bare Exception; other errors pass, and nothing is left behind."""
    text = "out could not be written: File too large"
    for error, kind in ((Exception("File too large"), StorageError), (KeyError("a"), KeyError)):
        match = text if kind is StorageError else "a"
        with pytest.raises(kind, match=match), new_places(tmp_path / "out"):
            raise error
    assert list(tmp_path.iterdir()) == []


def test_a_trained_head_that_an_adapter_cannot_hold_is_said(
    capsys, recipe, run, backbone_folder, tmp_path
):
    task = {**run["task"], "options": {**run["task"]["options"], "template": "{text}"}}
    own = {**run, "backbone": {"name": str(backbone_folder("bert"))}, "task": task}
    own |= {"readout": "linear", "prompt": {"method": "p-tuning-v2", "length": 3}}
    assert main(["train", recipe(own), "--out", str(tmp_path / "head")]) == 0
    capsys.readouterr()
    place = str(tmp_path / "adapter")
    assert main(["export", str(tmp_path / "head"), "--to", "peft", "--out", place]) == 0
    assert "not in it: the trained readout" in capsys.readouterr().out
