"""Gradients only where rows of a prompt stand, in front of the first attention.

All that a model does before its first attention it does to each position by itself, else inputs
could not stand one behind the other in a row. So tokens, which have no gradient, need none there:
products back are taken at rows alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from softprompts.backbones.fused_attention import Wanted


class _Local(threading.local):
    wanted: Wanted | None = None


_NOW = _Local()


@contextmanager
def narrowing(wanted: Wanted | None) -> Iterator[None]:
    """Let products and the first attention know what is wanted, until that has run.

    Args:
        wanted: places; all when `None`.
    """
    _NOW.wanted = wanted
    try:
        yield
    finally:
        _NOW.wanted = None


def wanted_now() -> Wanted | None:
    """Return the places that are wanted of what runs now."""
    return _NOW.wanted


def end_narrowing() -> Wanted | None:
    """Return the places that are wanted; from here on positions meet, and all are."""
    wanted, _NOW.wanted = _NOW.wanted, None
    return wanted
