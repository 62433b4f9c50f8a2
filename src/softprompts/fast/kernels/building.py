"""Code for the processor, compiled from the sources beside this file when it is first asked for."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from softprompts.cache_folder import find_cache_folder
from softprompts.errors import BackboneError, StorageError

Check = Callable[[ctypes.CDLL], None]

SOURCE = Path(__file__).with_name("kernels.cpp")

CAPABILITIES = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq", "avx512_bf16", "fma3")
"""What the processor must have, as `torch.cpu.get_capabilities` names it."""

_FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-fopenmp", "-w"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mfma"),
)
_LINK_FLAGS = ("-shared", "-Wl,-z,now", "-Wl,--no-undefined")
_COMPILERS = ("g++", "c++")
_RUNTIMES = ("libgomp", "libiomp5")
_SECONDS = 120
_DIGEST_BYTES = 32
_LOG = logging.getLogger(__name__)


def load_library(check: Check) -> ctypes.CDLL:
    """Return the compiled code. It is compiled once a machine, and kept where caches are.

    Args:
        check: tries code that was just compiled, and raises a `BackboneError` if it is wrong; then
            it is not kept.

    Raises:
        BackboneError: if the processor lacks an instruction, or the code cannot be compiled.
    """
    found = _try_once(check)
    if isinstance(found, BackboneError):
        raise found
    return found


@lru_cache(maxsize=1)
def _try_once(check: Check) -> ctypes.CDLL | BackboneError:
    """Return the code, or why there is none: what fails once fails for the whole process."""
    try:
        return _load(check)
    except BackboneError as error:
        return error


def _load(check: Check) -> ctypes.CDLL:
    check_processor()
    runtime = _find_runtime()
    name = _file_name(runtime)
    try:
        kept = find_cache_folder(name="kernels")
        if kept is not None:
            kept.path.mkdir(parents=True, exist_ok=True)
            _close(kept.path)
            return _load_kept(kept.path / name, runtime, check)
    except (OSError, StorageError) as error:
        _LOG.info("compiled code cannot be kept: %s", error)
    with tempfile.TemporaryDirectory() as own:  # once it is open its file is not needed any more
        build(find_compiler(), runtime, Path(own) / name, check)
        return ctypes.CDLL(str(Path(own) / name))


def _file_name(runtime: Path | None) -> str:
    """Return a name that is another for other code, flags, library of threads, or products."""
    has_tiles = bool(find_capabilities().get("amx_bf16"))  # code tried without may be wrong
    about = (*_FLAGS, *_LINK_FLAGS, str(runtime), has_tiles, SOURCE.read_text(encoding="utf-8"))
    return f"kernels-{hashlib.sha256(repr(about).encode()).hexdigest()[:32]}.so"


def _load_kept(path: Path, runtime: Path | None, check: Check) -> ctypes.CDLL:
    """Return the code in a file, made first where there is none or it is broken."""
    if path.exists():
        try:
            _check_kept(path)
            return ctypes.CDLL(str(path))
        except OSError as error:
            _LOG.info("compiled code is broken and made anew: %s", error)
    build(find_compiler(), runtime, path, check)
    return ctypes.CDLL(str(path))


def _close(folder: Path) -> None:
    """Let nobody but this user write in a folder.

    Raises:
        OSError: if it is another user's, or no folder.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(f"{folder} is not a folder of this user")
    folder.chmod(0o700)


def _check_kept(path: Path) -> None:
    """Check that a file is as this user made it.

    Raises:
        OSError: if it is a link, another user's, writable by others, or not what was written.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise OSError(f"{path} is not a file that this user alone may write")
    content = path.read_bytes()
    if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
        raise OSError(f"{path} is not as it was written")


def check_processor(capabilities: Mapping[str, Any] | None = None) -> None:
    """Check that the processor has the instructions.

    Args:
        capabilities: what it has; that of this machine when `None`.

    Raises:
        BackboneError: if it lacks one.
    """
    if sys.platform != "linux":
        raise BackboneError(f"compiled kernels must run on linux, but runs on {sys.platform!r}.")
    capabilities = find_capabilities() if capabilities is None else capabilities
    missing = [name for name in CAPABILITIES if not capabilities.get(name)]
    if missing:
        raise BackboneError(
            "compiled kernels must have a processor with "
            f"{', '.join(CAPABILITIES)}, but this one lacks {', '.join(missing)}."
        )


def find_capabilities() -> Mapping[str, Any]:
    """Return what the processor can do, as far as PyTorch tells."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def find_compiler(environment: Mapping[str, str] | None = None) -> str:
    """Return the path of a C++ compiler: that which `CXX` names, else GCC's.

    Args:
        environment: variables by name; those of the process when `None`.

    Raises:
        BackboneError: if there is none.
    """
    environment = os.environ if environment is None else environment
    named = environment.get("CXX", "").strip()
    names = (named,) if named else _COMPILERS
    for name in names:
        found = shutil.which(name, path=environment.get("PATH"))
        if found is not None:
            return found
    raise BackboneError(
        f"compiled kernels must find a C++ compiler, but finds no {' or '.join(names)}: install "
        "g++, or let CXX name one."
    )


def build(compiler: str, runtime: Path | None, path: Path, check: Check) -> None:
    """Compile the code into a file, in one step: another process sees all of it or nothing.

    Args:
        compiler: a C++ compiler.
        runtime: the library of threads that torch uses; the compiler's own when `None`.
        path: the file.
        check: tries the code before the file is there.

    Raises:
        BackboneError: if it does not compile or load, or is wrong.
        OSError: if the folder cannot be written to.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as own:
        code, made = Path(own) / "kernels.o", Path(own) / path.name
        threads = ("-fopenmp",) if runtime is None else (str(runtime),)
        _run(compiler, *_FLAGS, "-c", str(SOURCE), "-o", str(code))
        _run(compiler, *_LINK_FLAGS, str(code), *threads, "-o", str(made))
        try:
            library = ctypes.CDLL(str(made))
        except OSError as error:
            raise BackboneError(f"compiled kernels could not be loaded: {error}") from error
        check(library)
        made.chmod(0o700)
        with open(made, "r+b") as file:  # what stands behind a library's end is not loaded
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())  # else a crash may leave a file without content
        os.replace(made, path)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line), *lines[:1] or [""])
        raise BackboneError(f"compiled kernels could not be compiled: {first}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackboneError(f"compiled kernels could not be compiled: {error}") from error


def _find_runtime() -> Path | None:
    """Return the library of threads that torch has loaded: a second one would fight over cores.

    Other packages may have brought one of their own: torch's lies beside it, or is the system's.
    """
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = (Path(line.split(maxsplit=5)[-1]) for line in lines)
    found = [path for path in paths if path.name.startswith(_RUNTIMES) and path.is_file()]
    own = [path for path in found if {"torch", "torch.libs"} & set(path.parts)]
    return next(iter([*own, *found]), None)
