"""Files that are whole or absent."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from softprompts import locks, storage
from softprompts.errors import FolderInUseError, StorageError
from softprompts.lab.reports.records import read_lines
from softprompts.training.journal import is_in_use


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


@pytest.mark.parametrize("what", ["a number", "a name", "what stands beside"])
def test_tensors_that_were_changed_are_refused(tmp_path, what):
    path = tmp_path / "x.safetensors"
    storage.write_tensors(path, {"a": torch.ones(3), "n": torch.tensor(True)}, {"step": 3})
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    if what == "a number":
        tensors["a"][1] += 1e-7
    elif what == "a name":
        tensors["b"] = tensors.pop("a")
    else:
        header["softprompts"] = header["softprompts"].replace("3", "4")
    save_file(tensors, path, header)
    with pytest.raises(StorageError, match=r"x.safetensors must be as it was written"):
        storage.read_tensors(path)


def test_tensors_that_another_process_removes_meanwhile_are_no_file(tmp_path, monkeypatch):
    path, real = tmp_path / "a.safetensors", torch.UntypedStorage.from_file
    storage.write_tensors(path, {"rows": torch.zeros(2)})

    def from_file(*args, **options):
        path.unlink()
        return real(*args, **options)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", from_file)
    with pytest.raises(StorageError, match=r"could not be read: .*No such file"):
        storage.read_tensors(path)


def test_tensors_of_another_program_are_read(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    found, about = storage.read_tensors(tmp_path / "x.safetensors")
    assert about == {}
    assert found["a"].tolist() == [1, 1, 1]


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


def test_several_may_write_and_read_one_file(tmp_path):
    """Threads share a process number, as containers on a shared folder may."""
    path = tmp_path / "x.bin"
    contents = [bytes([number]) * (1000 + 7000 * number) for number in range(1, 5)]
    storage.write_bytes(path, contents[0])

    def write(content):
        for _ in range(40):
            storage.write_bytes(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


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


@pytest.fixture
def fcntl():
    return pytest.importorskip("fcntl", reason="no locks on this platform")


@pytest.fixture
def naps(monkeypatch):
    """Return how long `lock` has waited; nothing waits."""
    found = []
    monkeypatch.setattr(locks.time, "sleep", found.append)
    return found


def test_a_lock_that_is_held_is_refused_soon(tmp_path, naps, fcntl):
    path = tmp_path / ".lock"
    with locks.lock(path):
        assert not naps
        with pytest.raises(FolderInUseError, match=f"{tmp_path.name} is in use by another process"):
            locks.lock(path)
        assert 0.02 <= sum(naps) <= 0.1
    locks.lock(path).close()


def test_a_lock_that_somebody_only_looks_at_is_given(tmp_path, monkeypatch, fcntl):
    path = tmp_path / ".lock"
    locks.lock(path).close()
    with open(path, "rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(locks.time, "sleep", lambda _: looking.close())
        locks.lock(path).close()
        assert looking.closed  # it was waited for


def test_a_look_takes_nothing(tmp_path, fcntl):
    path = tmp_path / ".lock"
    assert not locks.is_locked(path)
    assert not is_in_use(tmp_path / "absent")
    assert not list(tmp_path.iterdir())
    with locks.lock(path):
        assert locks.is_locked(path)
        assert is_in_use(tmp_path)
        assert not locks.is_locked(path / ".lock")
    with open(path, "rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not locks.is_locked(path), "one who looks was seen by another"
    with pytest.raises(StorageError, match=r"could not be read: Is a directory"):
        locks.is_locked(tmp_path)


def test_nothing_is_written_through_a_link(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    for content in (None, "kept"):  # nothing at its end, then a file
        if content:
            target.write_text(content)
        with pytest.raises(StorageError, match=r"link.json must be a new or regular .* is a link"):
            storage.write_json(link, {"a": 1})
        for mode in ("ab", "r+b", "xb"):
            with pytest.raises(OSError, match="it is a link"):
                storage.open_file(link, mode)
        with pytest.raises(StorageError, match=r"link.json could not be written: it is a link"):
            locks.lock(link)
        assert (target.read_text() if content else target.exists()) == (content or False)


def test_pipes_devices_and_large_files_are_not_read(tmp_path, monkeypatch):
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    with open(large, "wb") as file:
        file.truncate(storage.MOST_BYTES + 1)
    for path, text in (
        (pipe, "pipe could not be read: it is a device or pipe"),
        (Path("/dev/zero"), "zero could not be read: it is a device or pipe"),
        (large, f"large could not be read: it has more than {storage.MOST_BYTES} bytes"),
    ):
        with pytest.raises(StorageError, match=text):
            storage.read_json(path)


def test_only_files_are_replaced(tmp_path):
    pipe, loop, folder = (tmp_path / name for name in ("pipe", "loop", "folder"))
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    folder.mkdir()
    before = {path: path.lstat().st_ino for path in tmp_path.iterdir()}
    for path, what in ((pipe, "a device or pipe"), (loop, "a link"), (folder, "a folder")):
        text = f"{path.name} must be a new or regular file, but is {what}."
        with pytest.raises(StorageError, match=text):
            storage.write_bytes(path, b"new")
    with pytest.raises(StorageError, match="File name too long"):
        storage.write_bytes(tmp_path / ("x" * 300), b"new")
    with pytest.raises(StorageError, match="null must be a new or regular file, but is a device"):
        storage.check_file(Path(os.devnull))
    assert {path: path.lstat().st_ino for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("ask", [storage.is_there, storage.is_file, storage.is_folder])
def test_a_name_that_no_file_may_have(tmp_path, ask):
    assert not ask(tmp_path / "none")
    with pytest.raises(StorageError, match="could not be read: File name too long"):
        ask(tmp_path / ("x" * 300))
