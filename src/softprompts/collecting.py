"""Python's collector of cycles, and when it had better wait."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the collector of cycles while much is made that stays: modules, weights, rows.

    It would go over all of it again and again, and find nothing: a fifth of the time from the first
    import to the first update. What was made counts as old afterwards, so that only a full
    collection looks at it; there, cycles from before and from within are found as ever. May
    decorate a function.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():  # else it is the caller's, and thawing would undo it
                gc.freeze()
                gc.unfreeze()
            gc.enable()
