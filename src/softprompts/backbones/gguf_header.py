"""The header of a GGUF file, read within the file's own bounds.

The package `gguf` believes every size that a file names. Here each is held against the bytes that
are there, before anything is allocated for it.

Reference:
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import Any, final

from softprompts.errors import BackboneError
from softprompts.storage import open_file

MAGIC = b"GGUF"
_SCALARS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4
_MOST_NESTED = 4
_LEAST_ENTRY_BYTES = 13  # a key without letters, its type and a byte
_LEAST_TENSOR_BYTES = 24


@final
@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        values: single values by key; of an array, how long it is.
        tensors: the shape of each tensor by its name, fastest axis first.
    """

    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """What kind of model it is, as llama.cpp calls it."""
        return str(self.values.get("general.architecture", "unknown"))


class _BadError(Exception):
    """Says what is wrong with a header."""


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file, and check that all that it names lies within the file."""
    try:
        with open_file(path) as stream:
            return _Reader(stream, path.stat().st_size).read()
    except OSError as error:
        raise BackboneError(f"{path} could not be read: {error.strerror or error}.") from error
    except _BadError as error:
        raise BackboneError(f"{path} must be a whole GGUF file, but {error}.") from None


class _Reader:
    """Goes through a header from its first byte to its last."""

    def __init__(self, stream: BufferedIOBase, size: int) -> None:
        self.stream, self.size = stream, size

    def read(self) -> GgufHeader:
        if self._bytes(4, "its magic number") != MAGIC:
            raise _BadError("does not begin with GGUF")
        version = self._number("I", "its version")
        if version not in (2, 3):
            raise _BadError(f"is of version {version}, where 2 or 3 is known")
        num_tensors = self._count(_LEAST_TENSOR_BYTES, "tensors")
        num_values = self._count(_LEAST_ENTRY_BYTES, "values")
        values: dict[str, Any] = {}
        for _ in range(num_values):
            key = self._text("a key")
            values[key] = self._value(self._number("I", f"the type of {key}"), key, 0)
        header = GgufHeader(values)
        places = [self._tensor(header.tensors) for _ in range(num_tensors)]
        farthest = max((begin + size for begin, size in places), default=0)
        self._check_data(values, max(farthest, sum(size for _, size in places)))
        return header

    def _tensor(self, shapes: dict[str, tuple[int, ...]]) -> tuple[int, int]:
        """Read what is said of a tensor; return where it begins behind the header, and its size."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._text("the name of a tensor")
        num_dimensions = self._number("I", f"the dimensions of {name}")
        if num_dimensions > _MOST_DIMENSIONS:
            raise _BadError(f"{name} has {num_dimensions} dimensions of at most {_MOST_DIMENSIONS}")
        shape = tuple(self._number("Q", f"the shape of {name}") for _ in range(num_dimensions))
        kind = self._number("I", f"the type of {name}")
        offset = self._number("Q", f"the place of {name}")
        if kind not in {int(one) for one in GGMLQuantizationType}:
            raise _BadError(f"{name} is of type {kind}, which is not known")
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        if name in shapes or not shape or (shape[0] % block):
            raise _BadError(
                f"{name} of shape {shape} does not fit blocks of {block}, or comes twice"
            )
        shapes[name] = shape
        return int(offset), math.prod(shape) // block * block_bytes

    def _check_data(self, values: dict[str, Any], end: int) -> None:
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= self.size:
            raise _BadError(f"has general.alignment {alignment!r:.40}")
        begin = -(-self.stream.tell() // alignment) * alignment
        if begin + end > self.size:
            raise _BadError(f"its tensors need {begin + end} bytes, where it has {self.size}")

    def _value(self, kind: int, key: str, depth: int) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind], key)
        if kind == _STRING:
            return self._text(key)
        if kind != _ARRAY or depth == _MOST_NESTED:
            raise _BadError(f"{key} is of type {kind}, which is not known, or nests too deep")
        inner = self._number("I", f"the type of {key}")
        if inner in _SCALARS:
            width = struct.calcsize(f"<{_SCALARS[inner]}")
            count = self._count(width, f"entries of {key}")
            self.stream.seek(count * width, 1)
            return count
        count = self._count(8, f"entries of {key}")
        for _ in range(count):
            self._value(inner, key, depth + 1)
        return count

    def _count(self, least_bytes: int, what: str) -> int:
        """Return a number of things that follow, each of some bytes at least."""
        count = self._number("Q", f"the number of {what}")
        if count * least_bytes > self.size - self.stream.tell():
            raise _BadError(f"names {count} {what}, more than its {self.size} bytes can hold")
        return int(count)

    def _text(self, what: str) -> str:
        length = self._number("Q", f"the length of {what}")
        return self._bytes(length, what).decode("utf-8", "replace")

    def _number(self, code: str, what: str) -> Any:
        (found,) = struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}"), what))
        return found

    def _bytes(self, count: int, what: str) -> bytes:
        if count > self.size - self.stream.tell():
            raise _BadError(f"ends within {what}, of {count} bytes")
        found = self.stream.read(count)
        if len(found) != count:
            raise _BadError(f"ends within {what}")
        return found
