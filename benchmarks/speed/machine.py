"""The machine: what it is, how busy it was, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from typing import Any

import torch

SIZE = 2048
PACKAGES = ("softprompts", "torch", "transformers", "peft")


def describe(dtype: torch.dtype, device: str = "cpu") -> dict[str, Any]:
    """Return facts about the machine; nothing in them names it.

    Args:
        dtype: of our backbone.
        device: where it runs.
    """
    about: dict[str, Any] = {
        "processor": torch.cpu.get_capabilities().get("cpu_name", "unknown"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in PACKAGES},
        "load_average": round(os.getloadavg()[0], 2),
    }
    if device != "cpu":
        about["accelerator"] = torch.cuda.get_device_name(device)
    return about


def matrix_rate(
    dtype: torch.dtype, device: str = "cpu", num_tries: int = 12, size: int = SIZE
) -> float:
    """Return operations per second of a product of two square matrices, the best of several tries.

    Args:
        dtype: of the matrices.
        device: where they are.
        num_tries: products, after one that does not count.
        size: rows and columns.
    """
    draws = torch.Generator().manual_seed(0)
    left = torch.randn(size, size, generator=draws).to(device, dtype)
    best = float("inf")
    for count in range(num_tries + 1):
        began = time.perf_counter()
        left @ left
        if device != "cpu":
            torch.cuda.synchronize(device)
        if count:
            best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def matrix_rates(size: int = SIZE) -> dict[str, dict[str, float]]:
    """Return the matrix rate of the processor in GFLOP/s, by dtype and number of threads."""
    threads = torch.get_num_threads()
    found: dict[str, dict[str, float]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        found[name] = {}
        for count in sorted({1, threads}):
            torch.set_num_threads(count)
            found[name][str(count)] = round(matrix_rate(dtype, size=size) / 1e9, 1)
    torch.set_num_threads(threads)
    return found
