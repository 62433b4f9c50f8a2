"""From a GGUF file to a folder like any other: dequantized once, and kept."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import replace
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

from softprompts.backbones.families import find_class, find_family
from softprompts.backbones.gguf_header import GgufHeader, read_header
from softprompts.backbones.registry import Source
from softprompts.backbones.sources import check_digest, check_folder, sampled
from softprompts.cache_folder import find_cache_folder
from softprompts.errors import BackboneError, StorageError
from softprompts.storage import read_json, write_json

_PART = ".part-"
_SIZES = "kept.json"
"""Beside what is kept: the size of each file, so that one that is cut or gone is seen."""

_IN_USE_SECONDS = 3600
"""How long what another process writes, or has just begun to load, is left alone."""


@contextmanager
def unpacked(source: Source, dtype: str) -> Iterator[Source]:
    """Give the folder of a GGUF file's weights, for as long as they are loaded from it.

    It is kept between processes, by the file's content, the dtype and the version of transformers,
    within the bound of all that is kept; the least used go first. Where nothing is kept, the folder
    goes when it has been loaded from. Another source is given as it is.
    """
    if source.file is None:
        yield source
        return
    if importlib.util.find_spec("gguf") is None:
        raise BackboneError(
            f"backbone {source.name!r} must be read with the package gguf, which is not installed: "
            "install softprompts with its extra `gguf`."
        )
    identity = check_digest(source, source.file) or _fingerprint(source.file)
    whole = replace(source, file=None, sha256=None, identity=identity)
    try:
        kept = find_cache_folder(name="weights")
    except StorageError as error:
        raise BackboneError(f"backbone {source.name!r}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="softprompts-") as scratch:
        folder = Path(scratch) / "weights"
        if kept is not None:
            changed = source.file.stat().st_mtime_ns if source.sha256 is None else 0
            text = f"{identity} {changed} {dtype} {version('transformers')}"
            folder = kept.path / hashlib.sha256(text.encode()).hexdigest()[:32]
        found = replace(whole, folder=folder)
        if not _is_whole(found):
            _make(source.file, read_header(source.file), found, dtype)
            if kept is not None:
                _trim(kept.path, kept.max_bytes, folder)
        yield found


def _fingerprint(file: Path) -> str:
    state = hashlib.sha256(f"gguf {file.stat().st_size}".encode())
    for part in sampled(file):
        state.update(part)
    return state.hexdigest()


def _is_whole(source: Source) -> bool:
    """Return whether a folder that is kept is there and can be loaded; touch it, if so."""
    try:
        check_folder(source)
        is_whole: bool = read_json(source.folder / _SIZES) == _sizes(source.folder)
        os.utime(source.folder)
    except (BackboneError, StorageError, OSError):
        return False
    return is_whole


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size of each file but the one that says them."""
    files = (path for path in folder.iterdir() if path.name != _SIZES)
    return {path.name: path.stat().st_size for path in files}


def _make(file: Path, header: GgufHeader, found: Source, dtype: str) -> None:
    """Dequantize a file into a folder, beside its place first."""
    model, tokenizer = _dequantize(file, header, found.name, dtype)
    try:
        found.folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=_PART, dir=found.folder.parent))
        try:
            model.save_pretrained(beside)
            tokenizer.save_pretrained(beside)
            write_json(beside / _SIZES, _sizes(beside))
            if found.folder.exists() and not _is_whole(found):  # else another process made it
                shutil.rmtree(found.folder, ignore_errors=True)
            if not found.folder.exists():
                beside.rename(found.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        if not _is_whole(found):  # else another process was first
            raise BackboneError(
                f"backbone {found.name!r} could not be kept in {found.folder.parent}: "
                f"{error.strerror or error}. `SOFTPROMPTS_CACHE` names another folder, or is off."
            ) from error


def _dequantize(file: Path, header: GgufHeader, name: str, dtype: str) -> tuple[Any, Any]:
    """Return model and tokenizer of a file, as transformers reads them."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    given = {"gguf_file": file.name, "local_files_only": True}
    try:
        with redirect_stderr(StringIO()), torch.random.fork_rng(devices=[]):  # bars
            config = AutoConfig.from_pretrained(file.parent, **given)
            _check_sizes(config, header)
            chosen = find_class(config, find_family(config), True)
            model, report = chosen.from_pretrained(
                file.parent,
                config=config,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                **given,
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, config=config, **given)
    except BackboneError:
        raise
    except Exception as error:  # of whatever kind a reader has for a file that it does not know
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BackboneError(
            f"backbone {name!r}: {file} must be a model that transformers reads from GGUF, but its "
            f"architecture {header.architecture!r} is not: {reason}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise BackboneError(
            f"backbone {name!r}: {file} must have all weights of {chosen.__name__}, but lacks "
            f"{len(missing)}: {missing[0]}."
        )
    del model.config.quantization_config  # they are plain weights now
    model.hf_quantizer, model.is_quantized = None, False
    return model, tokenizer


def _check_sizes(config: Any, header: GgufHeader) -> None:
    """Check that a model is no larger than the tensors of its file, before it is built."""
    largest = max((max(shape) for shape in header.tensors.values()), default=0)
    limits = dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), largest)
    for field, most in {"num_hidden_layers": len(header.tensors), **limits}.items():
        size = getattr(config, field, 0)
        if isinstance(size, int) and size > most:
            raise ValueError(f"{field} is {size}, but its tensors go up to {most}")


def _trim(folder: Path, max_bytes: int, newest: Path) -> None:
    """Remove what is kept over the bound, the least used first; what killed processes left, too.

    What others may be writing or loading now stays, even over the bound.
    """
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process removed it
            size = sum(one.stat().st_size for one in path.glob("*") if one.is_file())
            found.append((path.stat().st_mtime, size, path))
    total = sum(size for _, size, _ in found)
    for used, size, path in sorted(found):
        is_idle = time.time() - used > _IN_USE_SECONDS
        if path != newest and is_idle and (total > max_bytes or path.name.startswith(_PART)):
            shutil.rmtree(path, ignore_errors=True)
            total -= size
