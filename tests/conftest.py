"""Fixtures shared by all tests: real task files, and tiny backbones built once per session."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from softprompts.backbones.backbone import Backbone

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of a property
settings.load_profile("untimed")
gc.disable()  # until all modules of tests are loaded


def pytest_collection_finish() -> None:
    """Turn the collector of cycles on again."""
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_user_cache() -> Iterator[None]:
    """Keep all tests, and the processes they start, away from the user's cache of readings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTPROMPTS_CACHE", "off")
        patch.delenv("SOFTPROMPTS_CACHE_BYTES", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """What this process writes reaches the disk when the system likes: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real SuperGLUE and FewGLUE files; skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SOFTPROMPTS_TEST_DATA", beside))
    if not (folder / "fewglue").is_dir():
        pytest.skip(f"real task files are absent from {folder}")
    return folder


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a kind of `tests/backbones.py` to its folder, built on first use."""
    from backbones import build

    folders: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = build(kind, tmp_path_factory.mktemp(f"tiny-{kind}"))
        return folders[kind]

    return get


@pytest.fixture(scope="session")
def tiny(backbone_folder: Callable[[str], Path]) -> Callable[[str], Backbone]:
    """Return a function from a kind to its loaded float32 backbone, shared: it is frozen."""
    from softprompts.backbones.loading import load_backbone

    loaded: dict[str, Backbone] = {}

    def get(kind: str) -> Backbone:
        if kind not in loaded:
            loaded[kind] = load_backbone(str(backbone_folder(kind)))
        return loaded[kind]

    return get
