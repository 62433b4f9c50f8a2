"""Encoded rows, kept on disk: a folder for each tokenizer, template, readout and budget."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import torch

from softprompts.cache_folder import find_cache_folder
from softprompts.component import Component
from softprompts.encoding import chat, inputs, template, tokenization
from softprompts.encoding.inputs import EncodedExample, EncodedInput, Target
from softprompts.encoding.template import Role
from softprompts.encoding.tokenization import Tokenization
from softprompts.errors import StorageError
from softprompts.examples import Example, TaskFormat
from softprompts.fast.disk_cache import DiskCache, digest, warn_once
from softprompts.readouts import asking
from softprompts.readouts.base import Readout
from softprompts.readouts.registry import READOUTS

ENCODING_FORMAT = 2
"""Goes up when the files change."""

LEAST_ROWS = 128
"""Fewer rows are encoded sooner than found."""

_PLAIN = tuple(field.name for field in fields(EncodedInput) if field.name != "targets")
_ROLES = {int(role): role for role in Role}


@final
class EncodingCache:
    """Keeps rows that were encoded in one way.

    Args:
        cache: the files.
    """

    def __init__(self, cache: DiskCache) -> None:
        self.cache = cache

    def encode(self, readout: Readout, examples: Sequence[Example]) -> list[EncodedExample]:
        """Return encoded examples: those that are kept as they are, the others encoded and kept.

        Args:
            readout: encodes.
            examples: the examples.

        Raises:
            DataError: as `readout.encode` does.
        """
        found: dict[bytes, EncodedExample] = {}
        keys = [row_key(example) for example in examples]
        for key, example in zip(keys, examples, strict=True):
            if key in found:
                continue
            kept = self.cache.get(key)
            if kept is not None:
                found[key] = from_bytes(kept.numpy().tobytes())
                continue
            found[key] = readout.encode(example)
            raw = to_bytes(found[key])
            if raw is not None:
                self.cache.add(key, torch.frombuffer(bytearray(raw), dtype=torch.uint8))
        self.cache.save()
        return [found[key] for key in keys]


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
    return (
        None
        if folder is None or about is None
        else EncodingCache(DiskCache(folder, about, "Encoded rows"))
    )


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
        "tokenizer": digest(backend.to_str()).hex(),
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
    return digest(json.dumps(content))


def to_bytes(row: EncodedExample) -> bytes | None:
    """Return an encoded row as JSON; `None` where it would not come back equal."""
    inputs = [
        [[(one.column, one.tokens) for one in item.targets], *(getattr(item, n) for n in _PLAIN)]
        for item in row.inputs
    ]
    try:
        raw = json.dumps(
            [inputs, row.num_columns, row.answers, row.is_cut], separators=(",", ":")
        ).encode()
        return raw if from_bytes(raw) == row else None
    except (TypeError, ValueError, LookupError):
        return None


def from_bytes(raw: bytes) -> EncodedExample:
    """Return the encoded row that `to_bytes` wrote."""
    lines, num_columns, answers, is_cut = json.loads(raw)
    inputs = []
    for targets, *values in lines:
        parts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in zip(_PLAIN, values, strict=True)
        }
        parts["roles"] = tuple(map(_ROLES.__getitem__, parts["roles"]))
        read = tuple(Target(column, tuple(tokens)) for column, tokens in targets)
        inputs.append(EncodedInput(**parts, targets=read))
    return EncodedExample(tuple(inputs), num_columns, tuple(answers), is_cut)


def _code_digest(readout: Readout) -> str | None:
    """Return a digest of the source that encodes, `None` where it cannot be read."""
    state = hashlib.sha256()
    try:
        for part in (asking, chat, inputs, template, tokenization, type(readout)):
            state.update(Path(inspect.getfile(part)).read_bytes())
    except (OSError, TypeError):
        return None
    return state.hexdigest()
