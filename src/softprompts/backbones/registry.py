"""Backbones that have a short name; any other name is a local folder or a hub id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from softprompts.registry import Registry


@dataclass(frozen=True)
class Source:
    """Where a backbone's files are.

    Attributes:
        name: the name that was asked for.
        folder: the folder with `config.json`, weights and tokenizer.
        sha256: the pinned digest of `model.safetensors`, or of `file`; `None` where nothing is
            pinned.
        file: the GGUF file that holds all of it, else `None`.
        identity: the fingerprint of the weights, where it is not that of the folder.
    """

    name: str
    folder: Path
    sha256: str | None = None
    file: Path | None = None
    identity: str | None = None


BACKBONES: Registry[Callable[[], Source]] = Registry("backbone")
BACKBONES.register(
    "minilm",
    "softprompts.backbones.bundled:find_minilm",
    summary="all-MiniLM-L6-v2: BERT, 6 layers, hidden 384, 22.7 million parameters, Apache-2.0",
    reference="Wang et al. 2020, arXiv 2002.10957",
)
BACKBONES.register(
    "smollm2",
    "softprompts.backbones.bundled:find_smollm2",
    summary="SmolLM2-135M-Instruct: Llama shape, 30 layers, hidden 576, 134.5 million parameters, "
    "Apache-2.0",
    reference="Allal et al. 2025, arXiv 2502.02737",
)
