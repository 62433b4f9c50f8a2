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
    """Return whether limits, as `numbered` returns them, are sizes by device."""
    return all(
        (key in ("mps", "cpu", "disk") or _is_count(key))
        and (_SIZE.fullmatch(size) is not None if isinstance(size, str) else _is_count(size))
        for key, size in limits.items()
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
