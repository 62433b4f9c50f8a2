"""Named random generators: every draw in the library says whose it is.

A run has one seed. Each kind of draw (initialization, order, few-shot, noise, …) gets a generator
of its own, derived from that seed, the name, and where needed a counter such as the epoch. Since a
generator is derived and never carried along, a run that is interrupted draws the same numbers when
it goes on. No global generator is read or changed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *path: str | int) -> int:
    """Return the 63-bit seed that belongs to `path` under `seed`.

    Returns:
        An integer in `[0, 2**63)`, the same on every machine.

    Example:
        >>> derive(0, "order", 1) == derive(0, "order", 1) != derive(0, "order", 2)
        True
    """
    text = str(int(seed))
    for part in path:
        text += f"/{type(part).__name__}:{part}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *path: str | int, device: str = "cpu") -> torch.Generator:
    """Return a fresh `torch.Generator` for `path` under `seed`, as `derive` has both.

    Draws on the CPU are the same on every machine.
    """
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *path))
