"""Kernels are compiled once, kept, and where they cannot be the reason is said."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import pytest

from softprompts import cache_folder
from softprompts.errors import BackboneError
from softprompts.fast import fused_attention
from softprompts.fast.fused_attention import find_library, why_not
from softprompts.fast.kernels import building

needs_kernels = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty cache folder; nothing is loaded, and nothing of it is remembered."""
    monkeypatch.setenv(cache_folder.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(building, "_try_once", lru_cache(maxsize=1)(building._try_once.__wrapped__))
    return tmp_path / "cache" / "kernels"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a compiler that writes what a real one made once."""
    folder = tmp_path_factory.mktemp("compiled")
    made = folder / "kernels.so"
    building.build(building.find_compiler(), building._find_runtime(), made, lambda _: None)
    copying = f'while [ "$1" != -o ]; do shift; done; cp {made} "$2"'
    return write_compiler(folder / "copying", copying)


@pytest.fixture
def quick(fresh: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache folder where compiling takes no time."""
    monkeypatch.setenv("CXX", str(compiled))
    return fresh


def keep(folder: Path, content: bytes) -> Path:
    """Write a file where compiled code would be kept."""
    folder.mkdir(parents=True)
    path = folder / building._file_name(building._find_runtime())
    path.write_bytes(content)
    return path


def write_compiler(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_processor_must_have_every_instruction() -> None:
    has_all = dict.fromkeys(building.CAPABILITIES, True)
    building.check_processor(has_all)
    for name in building.CAPABILITIES:
        with pytest.raises(BackboneError, match=f"lacks {name}"):
            building.check_processor(has_all | {name: False})


def test_only_linux_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BackboneError, match="linux"):
        building.check_processor()


def test_a_compiler_is_named_or_found(tmp_path: Path) -> None:
    own = write_compiler(tmp_path / "own", "exit 0")
    assert building.find_compiler({"CXX": str(own)}) == str(own)
    assert building.find_compiler({"CXX": "own", "PATH": str(tmp_path)}) == str(own)
    with pytest.raises(BackboneError, match=r"finds no g\+\+ or c\+\+: install"):
        building.find_compiler({"PATH": str(tmp_path)})
    with pytest.raises(BackboneError, match="finds no absent"):
        building.find_compiler({"CXX": "absent", "PATH": str(tmp_path)})


@needs_kernels
def test_they_are_compiled_once_and_kept(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = find_library()
    assert isinstance(library.gelu, ctypes._CFuncPtr)
    (kept,) = quick.iterdir()
    when = kept.stat().st_mtime_ns
    building._try_once.cache_clear()
    monkeypatch.setenv("CXX", "absent")  # what is kept needs no compiler
    find_library()
    assert [one.stat().st_mtime_ns for one in quick.iterdir()] == [when]


@needs_kernels
@pytest.mark.parametrize("trouble", ["off", "a file in the way", "a broken file stays"])
def test_without_a_place_to_keep_them_they_are_compiled_each_time(
    quick: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "off":
        monkeypatch.setenv(cache_folder.FOLDER, "off")
    elif trouble == "a file in the way":
        quick.parent.write_text("")
    else:
        kept = keep(quick, b"no library")
        whole = tempfile.TemporaryDirectory

        def refuse(dir: Path | None = None, **options: str) -> tempfile.TemporaryDirectory[str]:
            if dir == quick:
                raise PermissionError(13, "Permission denied")
            return whole(dir=dir, **options)

        monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    assert isinstance(find_library().attend, ctypes._CFuncPtr)
    if trouble == "a broken file stays":
        assert kept.read_bytes() == b"no library"


@needs_kernels
@pytest.mark.parametrize("content", [b"", b"no library"])
def test_a_broken_file_is_made_anew_and_kept(
    quick: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    caplog.set_level("INFO", building.__name__)
    kept, done = keep(quick, content), []
    sync, move = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("fsync") or sync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("replace") or move(*paths))
    assert isinstance(find_library().attend, ctypes._CFuncPtr)
    assert done == ["fsync", "replace"]
    assert list(quick.iterdir()) == [kept]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("compiled code is broken and made anew: ")
    if content:
        return
    # another process: this one knows the file by its name, and does not look again
    code = "from softprompts.fast.fused_attention import why_not; print(why_not())"
    environment = {**os.environ, "CXX": "absent"}
    later = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert later.stdout == b"None\n"


@needs_kernels
@pytest.mark.parametrize("wrong", ["owner", "mode", "digest", "link"])
def test_code_that_another_may_have_written_is_made_anew(
    quick: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    find_library()
    (kept,) = quick.iterdir()
    assert stat.S_IMODE(quick.stat().st_mode) == 0o700
    before = kept.stat().st_ino
    if wrong == "owner":
        if os.geteuid():
            pytest.skip("only root can give a file away")
        os.chown(kept, 1234, -1)
    elif wrong == "mode":
        kept.chmod(0o777)
    elif wrong == "digest":
        content = kept.read_bytes()
        kept.unlink()  # it is loaded: to write into it would harm this process
        kept.write_bytes(content[:-1] + b"x")
    else:
        kept.rename(tmp_path / "elsewhere.so")
        kept.symlink_to(tmp_path / "elsewhere.so")
    building._try_once.cache_clear()
    loaded = []
    whole = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda path: loaded.append(Path(path)) or whole(path))
    find_library()
    assert loaded[0].parent.name.startswith(".building-"), "it was loaded before it was made anew"
    assert kept.lstat().st_ino != before
    assert not kept.is_symlink()


@needs_kernels
def test_a_folder_of_another_is_not_used(quick: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    quick.mkdir(parents=True)
    quick.chmod(0o777)
    os.chown(quick, 1234, -1)
    assert isinstance(find_library().attend, ctypes._CFuncPtr)
    assert not list(quick.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are for linux")
def test_why_it_does_not_compile_is_said_and_not_tried_again(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "check_processor", lambda: None)
    runs = tmp_path / "runs"
    text = f'echo run >> {runs}; echo "kernels.cpp:1: error: no such thing" >&2; exit 1'
    monkeypatch.setenv("CXX", str(write_compiler(tmp_path / "failing", text)))
    for _ in range(2):
        with pytest.raises(BackboneError, match=r"could not be compiled: .* no such thing"):
            find_library()
    assert runs.read_text() == "run\n"
    assert not list(fresh.iterdir())


@needs_kernels
@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("6.93121791e-1f", "5e-1f", "attend as the formula says"),
        ("0.5f * 1.421413741f", "0.5f * 1.1f", "take GELU as the formula says"),
        pytest.param(
            "_mm512_set1_ps(0.39894228f)",
            "_mm512_set1_ps(0.3f)",
            "take GELU as the formula says",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_code_that_is_wrong_is_neither_used_nor_kept(
    fresh: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    right: str,
    wrong: str,
    reason: str,
) -> None:
    text = building.SOURCE.read_text("utf-8")
    assert right in text
    (tmp_path / "wrong.cpp").write_text(text.replace(right, wrong))
    monkeypatch.setattr(building, "SOURCE", tmp_path / "wrong.cpp")
    monkeypatch.setattr(building, "_FLAGS", (*building._FLAGS, "-O0"))  # the last one counts
    assert reason in str(fused_attention.why_not())
    assert not list(fresh.iterdir())


@needs_kernels
def test_those_who_compile_at_once_do_not_disturb_each_other(quick: Path) -> None:
    with ThreadPoolExecutor(3) as pool:  # processes would do the same in more time
        libraries = list(
            pool.map(lambda _: building._load(fused_attention.check_library), range(3))
        )
    assert all(isinstance(one.attend, ctypes._CFuncPtr) for one in libraries)
    assert len(list(quick.iterdir())) == 1


def test_a_machine_that_can_have_them_has_them() -> None:
    """Else all tests of kernels would be skipped where the code is wrong."""
    try:
        building.check_processor()
        building.find_compiler()
    except BackboneError as error:
        pytest.skip(str(error))
    assert why_not() is None


def test_the_source_is_part_of_the_package() -> None:
    assert building.SOURCE.is_file()
