"""Encoded rows, kept on disk: found by content, never stale, safe to lose.

A folder belongs to one way of encoding: tokenizer, template, readout and budget. Its files are
written once, each with a check over all of it. They lie beside the readings, under the same bound.
As there, trouble is one line of warning, and rows are encoded again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from softprompts.cache_folder import CacheFolder, find_cache_folder
from softprompts.component import Component
from softprompts.encoding import chat, columns, inputs, template, tokenization, words
from softprompts.encoding.columns import Columns, to_columns
from softprompts.encoding.inputs import EncodedExample
from softprompts.encoding.tokenization import Tokenization
from softprompts.errors import StorageError
from softprompts.examples import Example, TaskFormat
from softprompts.readouts import asking
from softprompts.readouts.base import Readout
from softprompts.readouts.registry import READOUTS
from softprompts.storage import make_folder, read_tensors, write_tensors
from softprompts.training.instance_cache import trim_cache, warn_once

ENCODING_FORMAT = 1
"""Goes up when the files change."""

LEAST_ROWS = 128
"""Fewer rows are encoded sooner than found."""

_MOST_FILES = 32
_KEY_BYTES = 32


@final
class EncodingCache:
    """Keeps rows that were encoded in one way, in files under `<folder>/<name>/`.

    Args:
        folder: the folder of all that is kept, and its bound in bytes.
        about: everything that an encoding depends on, beside the row.
    """

    def __init__(self, folder: CacheFolder, about: Mapping[str, Any]) -> None:
        text = json.dumps(dict(about), sort_keys=True)
        self.folder, self.path = folder, folder.path / _digest(text)[:32]
        self._places: dict[bytes, tuple[Columns, int]] | None = None
        self._files: list[Path] = []
        self._lock = threading.RLock()

    def encode(self, readout: Readout, examples: Sequence[Example]) -> list[EncodedExample]:
        """Return encoded examples: those that are kept as they are, the others encoded and kept.

        Args:
            readout: encodes.
            examples: the examples.

        Raises:
            DataError: as `readout.encode` does.
        """
        with self._lock:
            if self._places is None:
                self._index()
            assert self._places is not None
            keys = [row_key(example) for example in examples]
            fresh: dict[bytes, EncodedExample] = {}
            encoded = []
            for key, example in zip(keys, examples, strict=True):
                if key in self._places:
                    kept, row = self._places[key]
                    encoded.append(kept[row])
                else:
                    fresh[key] = readout.encode(example)
                    encoded.append(fresh[key])
            if fresh:
                self._keep(fresh)
            return encoded

    def _index(self) -> None:
        """Read all files of the folder; broken ones are set aside."""
        self._places, self._files = {}, []
        try:
            paths = sorted(self.path.glob("*.safetensors"))
        except OSError as error:
            warn_once("read", f"{self.path} could not be read: {error}.")
            return
        for path in paths:
            try:
                keys, kept = _read(path)
            except StorageError as error:
                if not path.exists():  # another process has merged or removed it
                    continue
                warn_once(str(path), f"{error} Its rows are encoded again.")
                if isinstance(error.__cause__, OSError):
                    continue
                try:
                    path.rename(path.with_name(path.name + ".broken"))
                except OSError:  # a folder that is only read: the file is left out all the same
                    continue
                continue
            self._learn(path, keys, kept)

    def _learn(self, path: Path, keys: Sequence[bytes], kept: Columns) -> None:
        assert self._places is not None
        self._files.append(path)
        self._places.update((key, (kept, row)) for row, key in enumerate(keys))

    def _keep(self, fresh: Mapping[bytes, EncodedExample]) -> None:
        """Write new rows, one file of many small ones, and hold the bound."""
        assert self._places is not None
        try:
            make_folder(self.path)
            self._learn(*_write(self.path, fresh))
            if len(self._files) > _MOST_FILES:
                old = self._files
                whole = {key: kept[row] for key, (kept, row) in self._places.items()}
                self._places, self._files = {}, []
                self._learn(*_write(self.path, whole))
                for path in old:
                    if path not in self._files:
                        path.unlink(missing_ok=True)
            trim_cache(self.folder)
        except (StorageError, OSError, ValueError) as error:
            warn_once("write", f"{error} Encoded rows are not kept.")


def open_encoding_cache(config: Component, readout: Readout) -> EncodingCache | None:
    """Return where rows are kept as a readout encodes them, or `None` where they are not.

    They are not where `SOFTPROMPTS_CACHE` is `off`, or where it cannot be told what the encoding
    depends on: a readout that is not the registered one of its kind or has no `tokenization` or
    `format`, source that cannot be read, a tokenizer that draws.

    Args:
        config: the readout's part of a recipe.
        readout: the readout it built.
    """
    try:
        folder = find_cache_folder()
    except StorageError as error:
        warn_once("folder", f"{error} Encoded rows are not kept.")
        return None
    about = None if folder is None else describe_encoding(config, readout)
    return None if folder is None or about is None else EncodingCache(folder, about)


def describe_encoding(config: Component, readout: Readout) -> dict[str, Any] | None:
    """Return everything that an encoding depends on, beside the row; `None` if it cannot be told.

    Args:
        config: the readout's part of a recipe.
        readout: the readout it built.

    Returns:
        Plain JSON values; equal for equal encodings.
    """
    tokens, format = getattr(readout, "tokenization", None), getattr(readout, "format", None)
    is_known = isinstance(tokens, Tokenization) and isinstance(format, TaskFormat)
    if not is_known or type(readout) is not READOUTS.load(config.kind):
        return None
    assert isinstance(tokens, Tokenization)
    assert isinstance(format, TaskFormat)
    tokenizer = tokens.tokenizer
    backend = tokenizer.backend_tokenizer
    code = _code_digest(readout)
    if code is None or getattr(backend.model, "dropout", None):
        return None
    return {
        "what": "encoded rows",
        "format": ENCODING_FORMAT,
        "tokenizer": _digest(backend.to_str()),
        "class": type(tokenizer).__qualname__,
        "special": [
            sorted(map(str, tokenizer.all_special_ids)),
            repr(tokenizer.special_tokens_map),
        ],
        "frame": repr(tokens.frame),
        "family": tokens.family,
        "chat": getattr(tokenizer, "chat_template", None),
        "after_bos": tokens.after_bos,
        "budget": tokens.budget,
        "readout": [config.kind, READOUTS.entry(config.kind).version, repr(dict(config.options))],
        "task": [format.labels, dict(format.templates), dict(format.verbalizer)],
        "versions": {name: version(name) for name in ("softprompts", "tokenizers", "transformers")},
        "code": code,
    }


def row_key(example: Example) -> bytes:
    """Return what a row is found by: 32 bytes from all of it but where it was read.

    Args:
        example: the row.
    """
    fields = list(example.fields.items())
    content = (fields, example.answers, example.choices, example.references, example.group)
    return hashlib.sha256(json.dumps(content).encode()).digest()


def _read(path: Path) -> tuple[list[bytes], Columns]:
    """Return keys and rows of a file.

    Raises:
        StorageError: if it cannot be read, or is not what was written.
    """
    tensors, about = read_tensors(path)
    try:
        keys = tensors.pop("keys")
        names = about["names"]
        if _check(keys, tensors, names) != about["check"]:
            raise ValueError("its check fails")
        kept = Columns(tensors, names)
        if keys.shape != (len(kept), _KEY_BYTES):
            raise ValueError(f"it has keys of shape {tuple(keys.shape)} for {len(kept)} rows")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StorageError(f"{path} must be whole, but is not: {error}.") from error
    raw = keys.numpy().tobytes()
    return [raw[start : start + _KEY_BYTES] for start in range(0, len(raw), _KEY_BYTES)], kept


def _write(
    folder: Path, values: Mapping[bytes, EncodedExample]
) -> tuple[Path, list[bytes], Columns]:
    """Write rows as one file, whose name is a digest of its content."""
    ordered = sorted(values)
    tensors, names = to_columns([values[key] for key in ordered])
    keys = torch.frombuffer(bytearray(b"".join(ordered)), dtype=torch.uint8)
    keys = keys.reshape(-1, _KEY_BYTES)  # (rows, 32)
    check = _check(keys, tensors, names)
    path = folder / f"{check[:32]}.safetensors"
    write_tensors(path, {"keys": keys, **tensors}, {"names": names, "check": check})
    return path, ordered, Columns(tensors, names)


def _check(keys: Tensor, tensors: Mapping[str, Tensor], names: Sequence[str]) -> str:
    """Return a digest of all that a file holds."""
    state = hashlib.sha256(json.dumps(list(names)).encode())
    for name, tensor in sorted({"keys": keys, **tensors}.items()):
        state.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        state.update(tensor.contiguous().numpy().tobytes())
    return state.hexdigest()


def _code_digest(readout: Readout) -> str | None:
    """Return a digest of the source that encodes, `None` where it cannot be read."""
    state = hashlib.sha256()
    try:
        for part in (asking, chat, columns, inputs, template, tokenization, words, type(readout)):
            state.update(Path(inspect.getfile(part)).read_bytes())
    except (OSError, TypeError):
        return None
    return state.hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
