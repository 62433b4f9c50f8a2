"""Root without its rights over files, so that a folder can be closed to it as to anybody."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_VERSION = 0x20080522
_RIGHTS = (1 << 1) | (1 << 2)  # to write, and to read and enter, whatever a file's mode says


@contextmanager
def unprivileged() -> Iterator[None]:
    """Let modes of files count for this thread, which stays the one who can read the checkout.

    Root becomes the checkout's owner where that is somebody else. Skips where root cannot let go.
    """
    owner = Path(__file__).stat().st_uid
    if os.geteuid() != 0:
        yield
    elif owner != 0:
        os.seteuid(owner)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        before = _capabilities()
        _set_capabilities([before[0] & ~_RIGHTS, *before[1:]])
        try:
            yield
        finally:
            _set_capabilities(before)


def _capabilities() -> list[int]:
    """Return the capabilities of this thread: effective, permitted, inheritable, low then high."""
    return _call("capget", [0] * 6)


def _set_capabilities(values: list[int]) -> None:
    _call("capset", values)


def _call(name: str, values: list[int]) -> list[int]:
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        pytest.skip("this system has no capabilities that root could let go")
    data = (ctypes.c_uint32 * 6)(*values)
    if function((ctypes.c_uint32 * 2)(_VERSION, 0), data):
        pytest.skip(f"root cannot let go of its rights: {os.strerror(ctypes.get_errno())}")
    return list(data)
