"""Backbones that have a short name; any other name is a local folder or a hub id."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from softprompts.registry import Registry

if TYPE_CHECKING:
    from softprompts.backbones.sources import Source

BACKBONES: Registry[Callable[[], Source]] = Registry("backbone")
BACKBONES.register(
    "minilm",
    "softprompts.backbones.minilm:find_minilm",
    summary="all-MiniLM-L6-v2: BERT, 6 layers, hidden 384, 22.7 million parameters, Apache-2.0",
    reference="Wang et al. 2020, arXiv 2002.10957",
)
BACKBONES.register(
    "smollm2",
    "softprompts.backbones.smollm2:find_smollm2",
    summary="SmolLM2-135M-Instruct: Llama shape, 30 layers, hidden 576, 134.5 million parameters, "
    "Apache-2.0",
    reference="Allal et al. 2025, arXiv 2502.02737",
)
