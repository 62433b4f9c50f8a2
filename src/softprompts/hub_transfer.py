"""Folders to and from the Hugging Face hub, by `owner/name`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from softprompts.errors import StorageError
from softprompts.storage import is_there

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.json", "*.safetensors", "README.md"]


def is_hub_name(name: str | Path) -> bool:
    """Return whether a name is that of a repository, and nothing is there on this machine."""
    return bool(_NAME.fullmatch(str(name))) and not is_there(Path(name))


def fetch(name: str, revision: str | None = None) -> Path:
    """Return the folder of a repository `owner/name`, downloaded once into the hub's own cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except Exception as error:  # any of a dozen kinds, by cause and version
        raise StorageError(
            f"{name} must be a folder or a prompt of the hub, but is no folder, and the hub says "
            f"{_reason(error)}"
        ) from error


def upload(
    name: str,
    write: Callable[[Path], None],
    *,
    private: bool = False,
    token: str | None = None,
    **options: Any,
) -> str:
    """Upload the folder that `write` makes, as `owner/name`; return the address of the commit.

    `options` are those of `HfApi.upload_folder`; `token` is what is stored on this machine when
    `None`.
    """
    from huggingface_hub import HfApi

    if not _NAME.fullmatch(name):
        raise StorageError(f"`name` must be owner/name, but is {name!r}.")
    hub = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="softprompts-") as place:
        folder = Path(place, "prompt")
        write(folder)
        try:
            hub.create_repo(name, private=private, exist_ok=True)
            found = hub.upload_folder(repo_id=name, folder_path=folder, **options)
        except Exception as error:
            raise StorageError(f"{name} could not be pushed: {_reason(error)}") from error
    return str(found.commit_url)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
