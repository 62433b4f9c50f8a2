"""How much memory a device has, and how much of it is free."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def total_bytes(device: torch.device) -> int:
    """Return the memory of a device, or what this process may have of it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _LIMITS:
        text = _text(name).strip()
        if text.isdigit():
            found.append(int(text))
    return min(found)


def free_bytes(device: torch.device) -> int:
    """Return the memory of a device that nobody uses at the moment."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return min(int(line.split()[1]) * 1024, total_bytes(device))
    return total_bytes(device)


def _text(name: str) -> str:
    try:
        return Path(name).read_text("utf-8")
    except OSError:
        return ""
