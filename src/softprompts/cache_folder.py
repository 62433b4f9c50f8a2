"""Where readings, encoded rows and compiled code are kept between processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from softprompts.errors import StorageError

FOLDER = "SOFTPROMPTS_CACHE"
BYTES = "SOFTPROMPTS_CACHE_BYTES"
DEFAULT_BYTES = 2 << 30


@dataclass(frozen=True)
class CacheFolder:
    """A folder, which need not exist, and the most bytes of all files in it."""

    path: Path
    max_bytes: int


def find_cache_folder(
    environment: Mapping[str, str] | None = None,
    platform: str = sys.platform,
    name: str = "readings",
) -> CacheFolder | None:
    """Return where readings are kept, as environment and platform say, each `name` in its folder.

    It is `None` where `SOFTPROMPTS_CACHE` is `off`; an empty variable counts as absent. No whole
    number of bytes, or no home and no named folder, is a `StorageError`.
    """
    environment = os.environ if environment is None else environment
    named = environment.get(FOLDER, "").strip()
    if named.lower() == "off":
        return None
    path = Path(named) if named else _user_cache(environment, platform) / "softprompts"
    try:
        path = path.expanduser().absolute()
    except RuntimeError as error:
        raise StorageError(
            f"`{FOLDER}` must name a folder or be off, since the user has no home folder, but is "
            f"{named!r}."
        ) from error
    return CacheFolder(path / name, _max_bytes(environment))


def _user_cache(environment: Mapping[str, str], platform: str) -> Path:
    """Return the folder that a platform has for caches; it may begin with `~`."""
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or "~/AppData/Local")
    if platform == "darwin":
        return Path("~/Library/Caches")
    named = environment.get("XDG_CACHE_HOME", "")
    return Path(named) if named.startswith("/") else Path("~/.cache")  # a relative one is void


def _max_bytes(environment: Mapping[str, str]) -> int:
    text = environment.get(BYTES, "").strip()
    if not text:
        return DEFAULT_BYTES
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise StorageError(f"`{BYTES}` must be a whole number of at least 1, but is {text!r}.")
    return int(text)
