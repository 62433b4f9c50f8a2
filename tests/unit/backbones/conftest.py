"""Damaged copies of tiny backbones, and a network that must stay untouched."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def copy(backbone_folder: Any, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a tiny backbone's folder, to be damaged."""

    def get(kind: str) -> Path:
        return Path(shutil.copytree(backbone_folder(kind), tmp_path / kind))

    return get


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail on any attempt to look up or reach another machine."""

    def refuse(*arguments: Any, **_options: Any) -> Any:
        raise AssertionError(f"the network was touched: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
