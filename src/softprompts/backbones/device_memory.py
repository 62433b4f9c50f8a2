"""How much memory each device may give: read as recipes and callers write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

SIZES: Final = (
    "sizes, such as 20GB, 512MiB or a number of bytes, by device: a number, mps, cpu or disk"
)
"""What limits must be, for an error."""

_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?[KMG]i?[Bb]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_NAMED = ("mps", "cpu", "disk")


def numbered(limits: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return limits with devices that are written as text, `"0"`, as numbers.

    A key that would stand twice is left as text, which `is_memory` refuses.
    """
    found: dict[Any, Any] = {}
    for key, size in limits.items():
        is_number = isinstance(key, str) and _NUMBER.fullmatch(key) and int(key) not in limits
        found[int(key) if is_number else key] = size
    return found


def is_memory(limits: Mapping[Any, Any]) -> bool:
    """Return whether limits are sizes by device.

    Args:
        limits: what `numbered` returned.
    """
    return all(_is_device(key) and _is_size(size) for key, size in limits.items())


def _is_device(key: Any) -> bool:
    return key in _NAMED or (isinstance(key, int) and not isinstance(key, bool) and key >= 0)


def _is_size(size: Any) -> bool:
    if isinstance(size, str):
        return _SIZE.fullmatch(size) is not None
    return isinstance(size, int) and not isinstance(size, bool) and size >= 0
