"""Whether the package is there that does the same faster."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

_FAST = "softprompts.fast"


@cache
def find_fast() -> ModuleType | None:
    """Return `softprompts.fast`; `None` where it was taken out."""
    try:
        return importlib.import_module(_FAST)
    except ModuleNotFoundError as error:
        if error.name != _FAST:
            raise
        return None
