"""A shard: many readings of one dtype and shape in one safetensors file, each with a check.

The tensors are `keys` `(readings, 32)`, `checks` `(readings, 16)`, both bytes, and `values`
`(readings, ...)`. A check is a digest of key, form and value, so that a reading is believed only
where its own bytes are whole and belong to its key.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from softprompts.storage import write_tensors

_KEY_BYTES, _CHECK_BYTES = 32, 16
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}

Form = tuple[str, tuple[int, ...]]


class BrokenShardError(Exception):
    """A shard is not what was written; for this package only, since no user sees it."""


def form_of(value: Tensor) -> Form | None:
    """Return the dtype and shape of a reading; `None` where its dtype is not kept on disk."""
    code = _CODES.get(value.dtype)
    return None if code is None else (code, tuple(value.shape))


def write_shard(folder: Path, values: Mapping[bytes, Tensor], about: Mapping[str, Any]) -> Path:
    """Write readings as one shard.

    Args:
        folder: where the shard goes; it exists.
        values: readings of one form by their keys of 32 bytes, at least one.
        about: kept in the header.

    Returns:
        The file, whose name is a digest of its content.

    Raises:
        StorageError: if it cannot be written.
    """
    keys = sorted(values)
    stacked = torch.stack([values[key].detach() for key in keys]).cpu().contiguous()
    form = form_of(stacked[0])
    assert form is not None
    raw = stacked.reshape(len(keys), -1).view(torch.uint8).numpy()
    checks = [_check(key, form, line.tobytes()) for key, line in zip(keys, raw, strict=True)]
    name = hashlib.sha256(b"".join((*keys, *checks))).hexdigest()[:32]
    path = folder / f"{name}.safetensors"
    tensors = {
        "keys": _bytes_tensor(keys, _KEY_BYTES),
        "checks": _bytes_tensor(checks, _CHECK_BYTES),
        "values": stacked,
    }
    write_tensors(path, tensors, about)
    return path


@final
class Shard:
    """A shard on disk; its keys are in memory, its values are read one by one.

    Args:
        path: the file.

    Attributes:
        keys: the keys, in the order of the values.
        form: dtype and shape of each value.
        num_bytes: size of the file.

    Raises:
        BrokenShardError: if the file is not a whole shard.
        OSError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._open()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BrokenShardError(f"{path} must be a whole shard, but is not: {error}.") from error

    def read(self, row: int) -> Tensor:
        """Return the value at a place, on the CPU.

        Raises:
            BrokenShardError: if its bytes are not those that were written.
            OSError: if the file cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self._begin + row * self._width)
            raw = bytearray(file.read(self._width))
        if _check(self.keys[row], self.form, bytes(raw)) != self._checks[row]:
            raise BrokenShardError(f"{self.path} must keep reading {row} whole, but does not.")
        code, shape = self.form
        if not raw:
            return torch.empty(shape, dtype=_DTYPES[code])
        return torch.frombuffer(raw, dtype=_DTYPES[code]).reshape(shape)

    def _open(self) -> None:
        """Read header, keys and checks; any doubt is a `ValueError` or the like."""
        with self.path.open("rb") as file:
            self.num_bytes = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if length > self.num_bytes - 8:
                raise ValueError("its header is cut")
            header = json.loads(file.read(length))
            base = 8 + length
            values = header["values"]
            count, *shape = map(int, values["shape"])
            self.form: Form = (values["dtype"], tuple(shape))
            self._width = math.prod(shape) * _DTYPES[values["dtype"]].itemsize
            widths = {"keys": _KEY_BYTES, "checks": _CHECK_BYTES, "values": self._width}
            begins = {name: _begin(header[name], count * widths[name]) for name in widths}
            if base + max(header[name]["data_offsets"][1] for name in widths) != self.num_bytes:
                raise ValueError(f"it has {self.num_bytes} bytes")
            file.seek(base + begins["keys"])
            keys = file.read(count * _KEY_BYTES)
            file.seek(base + begins["checks"])
            checks = file.read(count * _CHECK_BYTES)
        self._begin = base + begins["values"]
        self.keys = _cut(keys, count, _KEY_BYTES)
        self._checks = _cut(checks, count, _CHECK_BYTES)


def _begin(about: Mapping[str, Any], size: int) -> int:
    """Return where a tensor begins, after checking how long it is."""
    begin, end = map(int, about["data_offsets"])
    if begin < 0 or end - begin != size:
        raise ValueError(f"a tensor has {end - begin} bytes instead of {size}")
    return begin


def _check(key: bytes, form: Form, raw: bytes) -> bytes:
    digest = hashlib.blake2b(key, digest_size=_CHECK_BYTES)
    digest.update(repr(form).encode())
    digest.update(raw)
    return digest.digest()


def _cut(raw: bytes, count: int, width: int) -> list[bytes]:
    if len(raw) != count * width:
        raise ValueError(f"it ends after {len(raw)} of {count * width} bytes")
    return [raw[start : start + width] for start in range(0, len(raw), width)]


def _bytes_tensor(rows: list[bytes], width: int) -> Tensor:
    return torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8).reshape(-1, width)
