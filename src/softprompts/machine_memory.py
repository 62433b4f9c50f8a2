"""How much memory a device has, how much of it is free, and what is done where it ran out."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import torch

from softprompts.errors import MemoryShortageError

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_CPU_TEXTS = ("DefaultCPUAllocator: can't allocate memory", "could not create a primitive")
"""What torch says where memory ran out, and what oneDNN does."""


def total_bytes(device: torch.device) -> int:
    """Return the memory of a device, or what this process may have of it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    limits = [int(text) for name in _LIMITS if (text := _text(name).strip()).isdigit()]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits])


def free_bytes(device: torch.device) -> int:
    """Return the memory of a device that nobody uses at the moment."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return min(int(line.split()[1]) * 1024, total_bytes(device))
    return total_bytes(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a processor or an accelerator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return not isinstance(error, MemoryShortageError)
    return isinstance(error, RuntimeError) and any(t in str(error) for t in _CPU_TEXTS)


def free_memory(device: torch.device) -> None:
    """Give back what a failed attempt has left; call it outside of the handler of its error."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _text(name: str) -> str:
    try:
        return Path(name).read_text("utf-8")
    except OSError:
        return ""
