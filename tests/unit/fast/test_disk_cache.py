"""The disk cache of readings: right or absent, whatever happens to its files."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from softprompts import storage
from softprompts.cache_folder import DEFAULT_BYTES, CacheFolder, find_cache_folder
from softprompts.errors import StorageError
from softprompts.fast import disk_cache, readings
from softprompts.fast.disk_cache import DiskCache

HOME = Path.home()


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Let each test warn as a new process would."""
    monkeypatch.setattr(disk_cache, "_WARNED", set())


def key(number):
    return hashlib.sha256(str(number).encode()).digest()


def value(number, width=3):
    return torch.randn(width, generator=torch.Generator().manual_seed(number))


def open_cache(root, max_bytes=DEFAULT_BYTES, who="a test"):
    return DiskCache(CacheFolder(root, max_bytes), {"who": who}, "Readings")


def fill(root, numbers, **options):
    cache = open_cache(root, **options)
    for number in numbers:
        cache.add(key(number), value(number))
    cache.save()
    return cache


def found(cache, numbers):
    """Return which of the readings are there; those that are must be right."""
    there = []
    for number in numbers:
        reading = cache.get(key(number))
        if reading is not None:
            assert torch.equal(reading, value(number))
            there.append(number)
    return there


def files(root, ending=".safetensors"):
    return sorted(path for path in root.rglob("*") if path.name.endswith(ending))


# --- where, and how large ---


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({}, "linux", HOME / ".cache/softprompts"),
        ({"XDG_CACHE_HOME": "/elsewhere"}, "linux", Path("/elsewhere/softprompts")),
        ({"XDG_CACHE_HOME": "relative"}, "linux", HOME / ".cache/softprompts"),
        ({"XDG_CACHE_HOME": "/elsewhere"}, "darwin", HOME / "Library/Caches/softprompts"),
        ({"LOCALAPPDATA": "/local"}, "win32", Path("/local/softprompts")),
        ({}, "win32", HOME / "AppData/Local/softprompts"),
        ({"SOFTPROMPTS_CACHE": "/mine"}, "linux", Path("/mine")),
        ({"SOFTPROMPTS_CACHE": "~/mine"}, "darwin", HOME / "mine"),
        ({"SOFTPROMPTS_CACHE": "mine"}, "linux", Path.cwd() / "mine"),
        ({"SOFTPROMPTS_CACHE": ""}, "linux", HOME / ".cache/softprompts"),
    ],
)
def test_the_folder(environment, platform, expected):
    folder = find_cache_folder(environment, platform)
    assert folder == CacheFolder(expected / "readings", DEFAULT_BYTES)


@pytest.mark.parametrize("word", ["off", "OFF", " off "])
def test_it_can_be_turned_off(word):
    assert find_cache_folder({"SOFTPROMPTS_CACHE": word}) is None


def test_tests_never_use_the_folder_of_the_user():
    assert find_cache_folder() is None


def test_the_bound():
    assert DEFAULT_BYTES == 2 * 1024**3
    assert find_cache_folder({"SOFTPROMPTS_CACHE_BYTES": "5000"}).max_bytes == 5000
    for text in ("0", "-1", "2 GiB", "1e9", "2_000", "٣"):
        with pytest.raises(StorageError, match=f"must be a whole number.*but is '{text}'"):
            find_cache_folder({"SOFTPROMPTS_CACHE_BYTES": text})


def test_a_user_without_home_must_name_a_folder(monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(StorageError, match=r"`SOFTPROMPTS_CACHE` must name a folder.*but is ''"):
        find_cache_folder({})


# --- files ---


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.uint8]),
            st.integers(1, 5),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_every_bit_comes_back(tmp_path_factory, forms):
    folder, rows = tmp_path_factory.mktemp("rows"), {}
    for number, (dtype, width) in enumerate(forms):
        rows[key(number)] = (100 * value(number, width)).abs().to(dtype)
    cache = open_cache(folder)
    for name, row in rows.items():
        cache.add(name, row)
    cache.save()
    assert len(files(folder)) == len({dtype for dtype, _ in forms})
    again = open_cache(folder)
    for name, row in rows.items():
        found = again.get(name)
        assert found.dtype == row.dtype
        assert torch.equal(found, row)


def test_a_file_is_an_ordinary_safetensors_file(tmp_path):
    fill(tmp_path, range(4))
    with safe_open(files(tmp_path)[0], "pt") as file:
        assert sorted(file.keys()) == ["ends", "keys", "values"]
        assert file.get_slice("values").get_shape() == [12]
        assert json.loads(file.metadata()["softprompts"])["who"] == "a test"


def test_equal_rows_make_equal_files(tmp_path):
    for name, numbers in (("a", range(4)), ("b", reversed(range(4))), ("c", range(5))):
        fill(tmp_path / name, numbers)
    one, other, more = ([path.name for path in files(tmp_path / name)] for name in "abc")
    assert one == other != more


def test_other_dtypes_are_not_for_the_disk(tmp_path):
    cache = open_cache(tmp_path)
    cache.add(key(0), torch.zeros(1, 2, dtype=torch.complex64))
    cache.save()
    assert files(tmp_path) == []


def test_no_prefix_and_no_flipped_bit_is_believed(tmp_path, monkeypatch):
    fill(tmp_path, range(3))
    (path,) = files(tmp_path)
    whole, num_refused = path.read_bytes(), 0
    monkeypatch.setattr(Path, "rename", lambda *_: None)
    harmed = [whole[:size] for size in range(0, len(whole), 7)]
    harmed += [
        whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(0, len(whole), 3)
    ]
    for content in (*harmed, whole + b"x"):
        path.write_bytes(content)
        num_refused += len(found(open_cache(tmp_path), range(3))) < 3
    assert num_refused > 0.9 * len(harmed)


# --- the cache ---


def test_nothing_is_there_before_it_is_saved(tmp_path):
    cache = open_cache(tmp_path / "new")
    cache.add(key(1), value(1))
    assert cache.get(key(1)) is None
    cache.save()
    assert found(cache, [1, 2]) == [1]
    assert found(open_cache(tmp_path / "new"), [1, 2]) == [1]
    assert [path.parent for path in files(tmp_path)] == [cache.path]


def test_names_are_apart(tmp_path):
    fill(tmp_path, [1])
    assert found(open_cache(tmp_path, who="another"), [1]) == []


def test_looking_writes_nothing(tmp_path):
    root = tmp_path / "absent"
    cache = open_cache(root)
    assert found(cache, [1]) == []
    cache.save()
    assert not root.exists()


def test_many_small_shards_become_one(tmp_path):
    cache = open_cache(tmp_path)
    other = open_cache(tmp_path)
    assert found(other, [0]) == []
    count = disk_cache._MOST_SMALL + 1
    for number in range(count - 1):
        cache.add(key(number), value(number))
        cache.save()
    assert len(files(tmp_path)) == count - 1
    late = open_cache(tmp_path)
    assert found(late, [0]) == [0]
    cache.add(key(count - 1), value(count - 1))
    cache.save()
    assert len(files(tmp_path)) == 1
    everything = list(range(count))
    for one in (cache, open_cache(tmp_path)):
        assert found(one, everything) == everything
    assert found(late, everything) == everything[:-1]


def test_shards_that_go_while_they_are_merged_are_no_trouble(tmp_path, caplog):
    count = disk_cache._MOST_SMALL + 3
    cache = fill(tmp_path, [0])
    assert found(cache, [0]) == [0]
    for number in range(1, count):
        if number == count - 4:  # the next saves merge shards that are gone
            for path in files(tmp_path):
                path.unlink()
        cache.add(key(number), value(number))
        cache.save()
    assert found(open_cache(tmp_path), range(count)) == list(range(count - 4, count))
    assert caplog.records == []


def test_large_shards_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_cache, "_SMALL_BYTES", 1)
    cache = open_cache(tmp_path)
    for number in range(disk_cache._MOST_SMALL + 2):
        cache.add(key(number), value(number))
        cache.save()
    assert len(files(tmp_path)) == disk_cache._MOST_SMALL + 2


def test_the_oldest_go_first(tmp_path):
    fill(tmp_path, [0, 1])
    (first,) = files(tmp_path)
    size = first.stat().st_size
    os.utime(first, ns=(1, 1))
    fill(tmp_path, [2, 3], who="b")
    (second,) = set(files(tmp_path)) - {first}
    os.utime(second, ns=(2, 2))
    assert len(files(tmp_path)) == 2
    fill(tmp_path, [4, 5], max_bytes=2 * size)
    assert not first.exists()
    assert len(files(tmp_path)) == 2
    assert found(open_cache(tmp_path, who="b"), [2, 3]) == [2, 3]
    fill(tmp_path, [6, 7], max_bytes=2 * size)
    assert not second.exists()
    assert found(open_cache(tmp_path), range(8)) == [4, 5, 6, 7]


def test_a_bound_below_one_shard_keeps_nothing_and_says_so(tmp_path, caplog):
    fill(tmp_path, [0], max_bytes=10)
    assert files(tmp_path) == []
    (line,) = [record.getMessage() for record in caplog.records]
    assert "`SOFTPROMPTS_CACHE_BYTES` must be larger" in line
    assert "is 10" in line


def test_only_own_files_are_ever_removed(tmp_path):
    own = open_cache(tmp_path).path
    own.mkdir()
    strangers = [
        tmp_path / "model.safetensors",
        tmp_path / "thesis" / f"{own.name}.safetensors",
        own / "model.safetensors",
        own / "notes.txt",
    ]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(5000))
        os.utime(path, ns=(1, 1))
    cache = fill(tmp_path, [0], max_bytes=2000)
    assert all(path.exists() for path in strangers)
    assert found(cache, [0]) == [0]


def test_leftovers_of_killed_processes_go(tmp_path, monkeypatch):
    folder = open_cache(tmp_path).path
    folder.mkdir()
    kept: list[Path] = []
    with monkeypatch.context() as patch:  # die between writing and renaming
        patch.setattr(storage.os, "replace", lambda beside, path: kept.append(Path(beside)))
        for name in ("a" * 32, "b" * 32):
            storage.write_bytes(folder / f"{name}.safetensors", b"half")
    old, new = kept
    past = time.time() - 2 * disk_cache._PART_SECONDS
    os.utime(old, (past, past))
    cache = fill(tmp_path, [0])
    assert [path.name for path in files(tmp_path, ".part")] == [new.name]
    assert found(cache, [0]) == [0]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped"])
def test_a_broken_file_is_set_aside(tmp_path, caplog, damage):
    fill(tmp_path, range(5))
    (path,) = files(tmp_path)
    fill(tmp_path, [7])
    whole = path.read_bytes()
    place = whole.index(value(1).numpy().tobytes()) + 2
    broken = {
        "cut": whole[:place],
        "empty": b"",
        "text": b"no file of ours",
        "flipped": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
    }
    path.write_bytes(broken[damage])
    cache = open_cache(tmp_path)
    assert found(cache, range(8)) == [7]
    assert [p.name for p in files(tmp_path, ".broken")] == [path.name + ".broken"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(path) in line
    assert "set aside" in line
    assert "\n" not in line
    for number in range(5):
        cache.add(key(number), value(number))
    cache.save()
    assert found(open_cache(tmp_path), range(8)) == [0, 1, 2, 3, 4, 7]


def test_a_broken_shard_in_a_folder_that_is_only_read(tmp_path, caplog, monkeypatch):
    fill(tmp_path, [0])
    (path,) = files(tmp_path)
    path.write_bytes(b"no shard")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    assert found(open_cache(tmp_path), [0]) == []
    assert path.exists()
    assert len(caplog.records) == 1


def test_a_file_that_cannot_be_read_now_is_left_where_it_is(tmp_path, caplog, monkeypatch):
    fill(tmp_path, [0])

    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.safe_open", refuse)
        assert found(open_cache(tmp_path), [0]) == []
    assert files(tmp_path, ".broken") == []
    (line,) = [record.getMessage() for record in caplog.records]
    assert "Too many open files" in line
    assert found(open_cache(tmp_path), [0]) == [0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_trouble_with_the_disk_is_one_warning(tmp_path, caplog, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    cache = fill(tmp_path, [0])
    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", refuse)
        for place in range(1, 4):
            cache.add(key(place), value(place))
            cache.save()
    assert found(cache, range(4)) == [0]
    (line,) = [record.getMessage() for record in caplog.records]
    assert os.strerror(number) in line
    assert files(tmp_path, ".part") == []


def test_a_folder_that_cannot_be_listed_is_no_trouble(tmp_path, caplog, monkeypatch):
    fill(tmp_path, [0])

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "glob", refuse)
    assert found(open_cache(tmp_path), [0]) == []
    (line,) = [record.getMessage() for record in caplog.records]
    assert "Permission denied" in line


def test_warnings_reach_a_terminal_as_one_line(tmp_path):
    """What a user sees who has set up no logging."""
    (tmp_path / "file").write_text("")
    code = (
        "from softprompts.fast.disk_cache import *; import torch\n"
        f"c = DiskCache(CacheFolder(Path({str(tmp_path / 'file')!r}), 9), {{}}, 'Rows')\n"
        "for _ in range(3): c.add(bytes(32), torch.zeros(1, 2)); c.save()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: ")
    assert str(tmp_path / "file") in line


def test_threads_may_share_a_cache(tmp_path):
    cache = open_cache(tmp_path)
    errors = []

    def work(first):
        try:
            for number in range(first, first + 40):
                cache.add(key(number), value(number))
                if number % 3 == 0:
                    cache.save()
                found(cache, [number - 1, number - 40])
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(40 * i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    cache.save()
    assert errors == []
    assert found(open_cache(tmp_path), range(160)) == list(range(160))


def work(root, first, count, bound, repeats):
    """Read and add, as a process of its own."""
    cache = open_cache(root, bound)
    for number in [*range(first, first + count)] * repeats:
        reading = cache.get(key(number))
        if reading is None:
            cache.add(key(number), value(number))
            if number % 3 == 0:
                cache.save()
        else:
            assert torch.equal(reading, value(number)), number
    cache.save()
    assert not disk_cache._WARNED


def start(root, first, count, bound=DEFAULT_BYTES, repeats=1):
    """Fork: an import of torch takes longer than the work, which uses no threads."""
    process = multiprocessing.get_context("fork").Process(
        target=work, args=(root, first, count, bound, repeats)
    )
    process.start()
    return process


@pytest.mark.parametrize("bound", [DEFAULT_BYTES, 4000])
def test_two_processes_at_once(tmp_path, bound):
    """They share half of their readings; with a small bound they remove each other's files."""
    both = [start(tmp_path, first, 160, bound, repeats=2) for first in (0, 80)]
    for process in both:
        process.join(timeout=600)
        assert process.exitcode == 0
    there = found(open_cache(tmp_path), range(240))
    total = sum(path.stat().st_size for path in files(tmp_path))
    if bound == DEFAULT_BYTES:
        assert there == list(range(240))
    else:
        assert there
        assert total <= bound
    assert files(tmp_path, ".part") == files(tmp_path, ".broken") == []


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    """After each kill, what is there is right; the last process makes it whole."""
    num_there = []
    for sitting in range(4):
        process = start(tmp_path, 0, 2000, repeats=3)
        before = len(files(tmp_path))
        while len(files(tmp_path)) <= before + 5 * sitting and process.is_alive():
            time.sleep(0.001)
        process.kill()
        process.join(timeout=600)
        num_there.append(len(found(open_cache(tmp_path), range(2000))))
    assert num_there[-1] > 0
    assert sorted(num_there) == num_there
    fill(tmp_path, range(2000))
    assert found(open_cache(tmp_path), range(2000)) == list(range(2000))
    assert files(tmp_path, ".broken") == []


def test_entries_are_found_by_kind_and_content():
    names = {
        readings.reading_key(entry)
        for entry in [
            ("instance/states", (1, 2), (0, 0)),
            ("instance/states", (1, 2), (0, 1)),
            ("instance/states", (1,), (2, 0, 0)),
            ("instance/states", (12,), (0, 0)),
            ("summary/mean", (1, 2), (0, 0)),
        ]
    }
    assert len(names) == 5
    assert {len(name) for name in names} == {32}


def test_the_cache_logs_through_the_library(tmp_path, caplog):
    with caplog.at_level(logging.ERROR, logger="softprompts"):
        fill(tmp_path, [0], max_bytes=1)
    assert caplog.records == []
