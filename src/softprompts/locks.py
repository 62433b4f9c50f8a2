"""Locks of files, which go with the process that holds them."""

from __future__ import annotations

import time
from io import BufferedIOBase
from pathlib import Path

from softprompts.errors import FolderInUseError
from softprompts.storage import open_file, reporting

_LOCK_TRIES = 5
_LOCK_PAUSE_SECONDS = 0.01


def lock(path: Path, *, should_wait: bool = False) -> BufferedIOBase:
    """Open and lock a file; the lock goes with the process, however it ends.

    Closing the file gives the lock back. `should_wait` waits until it is free, for short work. Else
    one that is taken is tried again for some hundredths of a second, for it may be `is_locked` that
    looks; then it is a `FolderInUseError`.
    """
    with reporting(path, "written"):
        file = open_file(path, "ab")
    try:
        import fcntl
    except ImportError:  # no such locks on this platform
        return file
    mode = fcntl.LOCK_EX | (0 if should_wait else fcntl.LOCK_NB)
    for number in range(_LOCK_TRIES):
        if number:
            time.sleep(_LOCK_PAUSE_SECONDS)
        try:
            fcntl.flock(file, mode)
            return file
        except OSError:
            continue
    file.close()
    raise FolderInUseError(f"{path.parent} is in use by another process.")


def is_locked(path: Path) -> bool:
    """Return whether a file is locked by `lock`; nothing is created.

    Those who look do not see each other.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this platform
        return False
    with reporting(path, "read"):
        try:
            file = open_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
