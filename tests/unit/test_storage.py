"""Files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from softprompts import storage
from softprompts.errors import StorageError


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


def test_json_that_is_not_finite_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nan"):
        storage.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_link_is_written_through(tmp_path):
    target, link = tmp_path / "below" / "target.json", tmp_path / "link.json"
    target.parent.mkdir()
    link.symlink_to(target)
    for value in ({"a": 1}, {"a": 2}):  # nothing at its end, then a file
        storage.write_json(link, value)
        assert link.is_symlink()
        assert storage.read_json(target) == value
    assert [path.name for path in target.parent.iterdir()] == ["target.json"]


def test_only_files_are_replaced(tmp_path):
    pipe, loop, folder = (tmp_path / name for name in ("pipe", "loop", "folder"))
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    folder.mkdir()
    before = {path: path.lstat().st_ino for path in tmp_path.iterdir()}
    for path, what in ((pipe, "a device or pipe"), (loop, "a loop of links"), (folder, "a folder")):
        text = f"{path.name} must be a new or regular file, but is {what}."
        with pytest.raises(StorageError, match=text):
            storage.write_bytes(path, b"new")
    with pytest.raises(StorageError, match="File name too long"):
        storage.write_bytes(tmp_path / ("x" * 300), b"new")
    with pytest.raises(StorageError, match="null must be a new or regular file, but is a device"):
        storage.file_at(Path(os.devnull))
    assert {path: path.lstat().st_ino for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("ask", [storage.is_there, storage.is_file, storage.is_folder])
def test_a_name_that_no_file_may_have(tmp_path, ask):
    assert not ask(tmp_path / "none")
    with pytest.raises(StorageError, match="could not be read: File name too long"):
        ask(tmp_path / ("x" * 300))
