"""Files that are whole or absent."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save

from softprompts import storage
from softprompts.errors import StorageError
from softprompts.reports.records import read_lines


def test_tensors_round_trip_exactly(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4), "empty": torch.zeros(0, 5)}
    storage.write_tensors(path, tensors, {"step": 3, "score": 0.1})
    found, about = storage.read_tensors(path)
    assert about == {"step": 3, "score": 0.1}
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    first = path.read_bytes()
    storage.write_tensors(path, tensors, {"score": 0.1, "step": 3})
    assert path.read_bytes() == first


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    storage.write_json(path, {"a": 1})

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=r"x.json could not be written: No space left"):
        storage.write_json(path, {"a": 2})
    assert storage.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_what_cannot_be_read(tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(StorageError, match=r"broken.json must be JSON"):
        storage.read_json(broken)
    with pytest.raises(StorageError, match=r"none.json could not be read"):
        storage.read_json(tmp_path / "none.json")
    with pytest.raises(StorageError, match=r"none.safetensors could not be read"):
        storage.read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(StorageError, match=r"broken.json must be a safetensors file"):
        storage.read_tensors(broken)


@pytest.mark.parametrize("depth", [101, 800, 200_000])
def test_json_that_nests_too_deep_is_refused(tmp_path, depth):
    text = "[" * depth + "]" * depth
    wanted = "it nests more than 100 deep"
    (tmp_path / "deep.json").write_text(text)
    with pytest.raises(StorageError, match=rf"deep\.json must be JSON, but is not: {wanted}"):
        storage.read_json(tmp_path / "deep.json")
    header = {"softprompts": f'{{"a": {text}}}'}
    (tmp_path / "deep.safetensors").write_bytes(save({"a": torch.zeros(1)}, header))
    with pytest.raises(StorageError, match=rf"deep\.safetensors must be a .* is not: {wanted}"):
        storage.read_tensors(tmp_path / "deep.safetensors")
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{text}\n')
    with pytest.raises(StorageError, match=rf"jsonl:2 must be JSON, but is not: {wanted}"):
        read_lines(tmp_path / "metrics.jsonl")


def test_json_that_nests_a_little_is_read(tmp_path):
    (tmp_path / "x.json").write_text("[" * 99 + "1" + "]" * 99)
    assert json.dumps(storage.read_json(tmp_path / "x.json")) == "[" * 99 + "1" + "]" * 99


def test_json_that_is_not_finite_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nan"):
        storage.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
