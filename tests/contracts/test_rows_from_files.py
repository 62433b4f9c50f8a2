"""Rows that start from a file: the file's content is part of what a run is, its place is not."""

from __future__ import annotations

import pytest
import torch

import softprompts as sp
from contracts.conftest import run_config
from softprompts.errors import PromptError, RecipeError
from softprompts.recipes.identity import identity
from softprompts.recipes.resolving import resolve
from softprompts.storage import write_tensors
from softprompts.training.building import build_model
from softprompts.training.execution import execute


def started_from(config, path):
    prompt = config.prompt.model_dump(mode="json")
    prompt["initializer"] = {"kind": "file", "path": str(path)}
    return config.model_copy(update={"prompt": sp.PromptConfig(**prompt)})


@pytest.fixture
def given(tiny, tmp_path):
    """A backbone, a run that starts from a file, and the file."""
    backbone = tiny("bert")
    file = tmp_path / "start" / "prompt.safetensors"
    file.parent.mkdir()
    write_tensors(file, {"rows": torch.randn(4, backbone.embedding_size)})
    return backbone, started_from(run_config(backbone, "prompt-tuning", "linear"), file), file


def test_the_content_is_part_of_the_identity_and_the_place_is_not(given, tmp_path):
    _, config, file = given
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    before = identity(config)
    assert identity(started_from(config, file.parent)) == before
    assert identity(started_from(config, copy)) == before
    write_tensors(file, {"rows": torch.zeros(4, 32)})
    assert identity(started_from(config, file)) != before
    assert identity(started_from(config, copy)) == before


def test_a_run_is_loaded_when_its_file_is_gone(given, task, tmp_path):
    backbone, config, file = given
    result = sp.Result.of(execute(config, backbone, task, folder=tmp_path / "run"))
    inputs = [dict(row.fields) for row in task.validation]
    expected = result.predict_scores(inputs)
    file.unlink()
    assert sp.load(tmp_path / "run", backbone).predict_scores(inputs) == expected


def test_a_file_that_changed_meanwhile_is_refused(given, task):
    backbone, config, file = given
    config = resolve(config)
    digest = config.prompt.initializer.options["digest"]
    build_model(config, backbone, task.format)
    write_tensors(file, {"rows": torch.zeros(4, backbone.embedding_size)})
    with pytest.raises(PromptError, match=f"rows start from, with digest {digest}, but has"):
        build_model(config, backbone, task.format)


def test_a_file_that_is_not_there_is_found_before_anything_is_loaded(given, tmp_path):
    _, config, _ = given
    text = r"`prompt.initializer.path` must be a prompt file or a run folder, but '.*none' cannot"
    with pytest.raises(RecipeError, match=text):
        resolve(started_from(config, tmp_path / "none"))
