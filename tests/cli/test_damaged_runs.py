"""Run folders that were damaged or edited: one line, exit 2, and the folder is left as it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_material import changed, refused, rows, tree, write_rows
from safetensors.torch import save_file

from softprompts.cli.main import main


def edit(path: Path, *keys: str, value: Any, should_remove: bool = False) -> None:
    """Set or remove a value inside a JSON file."""
    content = node = json.loads(path.read_text())
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    if should_remove:
        del node[keys[-1]]
    path.write_text(json.dumps(content))


Damage = Callable[[Path], Any]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "prompt cut short": (
        lambda out: os.truncate(out / "prompt.safetensors", 700),
        "prompt.safetensors must be a safetensors file",
    ),
    "prompt empty": (
        lambda out: (out / "prompt.safetensors").write_bytes(b""),
        "prompt.safetensors must be a safetensors file",
    ),
    "prompt of something else": (
        lambda out: (out / "prompt.safetensors").write_bytes(bytes(range(256)) * 9),
        "prompt.safetensors must be a safetensors file",
    ),
    "prompt missing": (
        lambda out: (out / "prompt.safetensors").unlink(),
        "prompt.safetensors could not be read",
    ),
    "prompt is a checkpoint": (
        lambda out: shutil.copy(
            out / "state" / "checkpoint.safetensors", out / "prompt.safetensors"
        ),
        "prompt.safetensors must have `task_format_digest`",
    ),
    "result broken": (
        lambda out: (out / "result.json").write_text('{"score": 0.'),
        "result.json must be JSON",
    ),
    "result a list": (
        lambda out: (out / "result.json").write_text("[]"),
        "result.json must be a JSON object, but is a list",
    ),
    "result without a score": (
        lambda out: (out / "result.json").write_text('{"identity": "x", "status": "finished"}'),
        "result.json must have `metric`",
    ),
    "result missing": (
        lambda out: (out / "result.json").unlink(),
        "must hold a finished run, but has no result.json",
    ),
    "result of another run": (
        lambda out: edit(out / "result.json", "identity", value="0123456789abcdef"),
        "but is of 0123456789abcdef",
    ),
    "config broken": (
        lambda out: (out / "config.json").write_text("seed: 3"),
        "config.json must be JSON",
    ),
    "config without its data": (
        lambda out: (out / "config.json").write_text('{"identity": 1, "config": {}}'),
        "config.json must have `data_digest`",
    ),
    "config without its dtype": (
        lambda out: edit(out / "config.json", "dtype", value=None, should_remove=True),
        "config.json must have `dtype`",
    ),
    "config that was edited": (
        lambda out: edit(out / "config.json", "config", "prompt", "length", value=5),
        "it was edited, or made by components of another version",
    ),
    "config that is no run": (
        lambda out: edit(out / "config.json", "config", "training", "batch_size", value=0),
        "config.json: `training.batch_size` must be at least 1, but is 0",
    ),
    "labels that were edited": (
        lambda out: edit(out / "config.json", "task_format", "labels", value=["good", "bad"]),
        "prompt.safetensors must have `task_format_digest`",
    ),
    "labels that are gone": (
        lambda out: edit(out / "config.json", "task_format", value={"name": "files"}),
        "config.json must have a whole `task_format`",
    ),
    "no templates": (
        lambda out: edit(out / "config.json", "task_format", "templates", value=None),
        "whole `task_format`, but has not: `templates` must be a mapping, but is null",
    ),
    "a number as a template": (
        lambda out: edit(out / "config.json", "task_format", "templates", "linear", value=5),
        "`templates.linear` must be text, but is 5",
    ),
    "text as a verbalizer": (
        lambda out: edit(out / "config.json", "task_format", "verbalizer", value="x"),
        "`verbalizer` must be a mapping, but is 'x'",
    ),
    "a list as a label": (
        lambda out: edit(out / "config.json", "task_format", "labels", value=[["bad"], "good"]),
        '`labels.0` must be text, but is ["bad"]',
    ),
    "text as a task format": (
        lambda out: edit(out / "config.json", "task_format", value="x"),
        "config.json: `task_format` must be a mapping, but is 'x'",
    ),
    "a number as a dtype": (
        lambda out: edit(out / "config.json", "dtype", value=32),
        "config.json: `dtype` must be text, but is 32",
    ),
    "a finished run without a score": (
        lambda out: edit(out / "result.json", "score", value=None),
        "result.json: `score` must be a number, but is null",
    ),
    "answers that are neither right nor wrong": (
        lambda out: edit(out / "result.json", "answers", value="10x"),
        "result.json: `answers` must be text that matches",
    ),
    "text as seconds": (
        lambda out: edit(out / "result.json", "seconds", value="x"),
        "result.json: `seconds` must be a number, but is 'x'",
    ),
    "another backbone": (
        lambda out: edit(out / "config.json", "backbone_fingerprint", value="beef"),
        "was trained on backbone weights beef",
    ),
    "no folder": (shutil.rmtree, "out could not be read: no such folder"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_not_loaded(capsys, tmp_path, finished, name):
    _, out = finished
    damage, text = DAMAGES[name]
    damage(out)
    write_rows(tmp_path / "new.jsonl", [{"text": "fine"}])
    before = tree(tmp_path)

    refused(capsys, ["evaluate", str(out)], text)
    arguments = ["--input", str(tmp_path / "new.jsonl"), "--output", str(tmp_path / "g.jsonl")]
    refused(capsys, ["predict", str(out), *arguments], text)
    assert tree(tmp_path) == before


def checkpoint_without_header(out: Path) -> None:
    save_file({"rows": torch.zeros(2)}, out / "state" / "checkpoint.safetensors")


STATES: dict[str, tuple[Damage, str]] = {
    "checkpoint cut short": (
        lambda out: os.truncate(out / "state" / "checkpoint.safetensors", 2000),
        "checkpoint.safetensors must be a safetensors file",
    ),
    "checkpoint empty": (
        lambda out: os.truncate(out / "state" / "checkpoint.safetensors", 0),
        "checkpoint.safetensors must be a safetensors file",
    ),
    "checkpoint of nobody": (
        checkpoint_without_header,
        "checkpoint.safetensors must be a checkpoint of run ",
    ),
    "metrics cut short": (
        lambda out: os.truncate(out / "metrics.jsonl", 100),
        "bytes that the checkpoint knows, but has 100",
    ),
    "metrics gone": (
        lambda out: (out / "metrics.jsonl").unlink(),
        "bytes that the checkpoint knows, but has 0",
    ),
    "config that was edited": (
        lambda out: edit(out / "config.json", "config", "seed", value=8),
        "it was edited, or made by components of another version",
    ),
    "labels that were edited": (
        lambda out: edit(out / "config.json", "task_format", "labels", value=["good", "bad"]),
        "must keep `task_format`, but was edited",
    ),
    "rows that changed": (
        lambda out: write_rows(out.parent / "data" / "train.jsonl", rows(2, 26)),
        "must belong to a run on data ",
    ),
    "config of nobody": (
        lambda out: (out / "config.json").write_text("{}"),
        "config.json must have `identity`",
    ),
    "config gone": (
        lambda out: (out / "config.json").unlink(),
        "must be empty or a run's folder, but holds metrics.jsonl, state",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_a_damaged_run_does_not_go_on(capsys, tmp_path, interrupted, name):
    path, out = interrupted
    damage, text = STATES[name]
    damage(out)
    before = tree(tmp_path)

    refused(capsys, ["train", path, "--out", str(out), "--resume"], text)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "state", ".lock"])
def test_nothing_is_written_through_a_link_out_of_a_run(capsys, tmp_path, interrupted, name):
    path, out = interrupted
    target = tmp_path / "elsewhere"
    (out / name).rename(target)
    (out / name).symlink_to(target)
    before = tree(tmp_path)

    refused(capsys, ["train", path, "--out", str(out), "--resume"], "a link")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_a_pipe_in_a_folder_is_not_waited_for(capsys, finished, name):
    _, out = finished
    (out / name).unlink()
    os.mkfifo(out / name)

    refused(capsys, ["evaluate", str(out)], "it is a device or pipe")


def test_a_result_of_an_older_version_is_shown(capsys, finished):
    path, out = finished
    for name in ("examples_per_second", "skipped_rows", "selected_step"):
        edit(out / "result.json", name, value=None, should_remove=True)

    assert main(["train", path, "--out", str(out), "--resume"]) == 0
    assert "selected step unknown of" in capsys.readouterr().out


def test_the_checkpoint_of_another_run(capsys, recipe, run, tmp_path, interrupted):
    path, out = interrupted
    other = recipe(changed(run, {"seed": 4}), "other.yaml")
    assert main(["train", other, "--out", str(tmp_path / "other")]) == 0
    shutil.copytree(tmp_path / "other" / "state", out / "state", dirs_exist_ok=True)
    text = "checkpoint.safetensors must be a checkpoint of run "

    refused(capsys, ["train", path, "--out", str(out), "--resume"], text)


def test_an_interrupted_run_goes_on_where_nothing_is_wrong(capsys, interrupted):
    path, out = interrupted

    assert main(["train", path, "--out", str(out), "--resume"]) == 0
    assert (out / "result.json").exists()
