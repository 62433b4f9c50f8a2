"""What the bits of a frozen forward depend on, beside the input: the key of kept readings.

A reading that is kept on disk must be the number that this process would have read. So the key
covers the weights themselves, the code that runs them, the machine and the switches of torch. What
differs in any of them has readings of its own; nothing has to be found out of date.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.quantized import as_bytes, plain_parts
from softprompts.fast.kernels.building import find_capabilities

CACHE_FORMAT = 2
"""Goes up when the files change, or what a reading is."""

_SWITCHES = ("MKL_", "ONEDNN_", "DNNL_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32_OVERRIDE")
"""Beginnings of the environment variables by which libraries choose how to sum."""

_MOST_THREADS = 8

Switches = tuple[int | bool | str, ...]


def read_switches() -> Switches:
    """Return the switches of torch that may change sums and may be turned while a process runs."""
    backends: Any = torch.backends  # parts of it have no types
    cuda = backends.cuda
    products = (getattr(backends.mkldnn, "matmul", None), cuda.matmul)
    return (
        torch.get_num_threads(),
        _matmul_precision(),
        *(str(getattr(product, "fp32_precision", None)) for product in products),
        str(getattr(cuda.matmul, "allow_fp16_reduced_precision_reduction", None)),
        str(getattr(cuda.matmul, "allow_bf16_reduced_precision_reduction", None)),
        torch.are_deterministic_algorithms_enabled(),
        bool(backends.mkldnn.enabled),
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
    )


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set per backend, which torch then wants to be asked
        return "per backend"


def describe_reading(backbone: Backbone, switches: Switches) -> dict[str, Any]:
    """Return everything that the bits of a reading depend on, beside the input.

    Args:
        backbone: the frozen model; all its weights are hashed.
        switches: from `read_switches`.

    Returns:
        Plain JSON values; equal for equal bits.
    """
    config = backbone.model.config
    return {
        "format": CACHE_FORMAT,
        "fingerprint": backbone.fingerprint,
        "weights": weights_digest(backbone.model),
        "config": _config_digest(config),
        "dtype": str(backbone.dtype),
        "attention": str(getattr(config, "_attn_implementation", None)),
        "versions": {name: version(name) for name in ("softprompts", "torch", "transformers")},
        "build": [torch.__version__, torch.version.git_version, torch.version.cuda],
        "machine": _machine(backbone.device),
        "switches": list(switches),
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_SWITCHES)},
    }


def weights_digest(model: torch.nn.Module) -> str:
    """Return a sha256 over all parameters and buffers, as they are in memory now.

    The fingerprint of a backbone samples large files; a reading must not outlive any change.

    Args:
        model: the model, on any device.
    """
    named = list(chain(model.named_parameters(), model.named_buffers()))
    with ThreadPoolExecutor(_MOST_THREADS) as pool:  # hashing runs outside the interpreter's lock
        digests = list(pool.map(_digest, (tensor for _, tensor in named)))
    whole = hashlib.sha256()
    for (name, tensor), digest in zip(named, digests, strict=True):
        whole.update(json.dumps([name, str(tensor.dtype), list(tensor.shape), digest]).encode())
    return whole.hexdigest()


def _config_digest(config: Any) -> str:
    """Return a sha256 over a model's configuration, wherever it was loaded from."""
    content = json.loads(config.to_json_string(use_diff=False))
    content.pop("_name_or_path", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    state = hashlib.sha256()
    for part in plain_parts(tensor):
        state.update(as_bytes(part))
    return state.hexdigest()


def _machine(device: torch.device) -> list[str]:
    """Return what says which kernels run: the processor's kind, and the accelerator's."""
    about = [
        device.type,
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        hashlib.sha256(repr(sorted(find_capabilities().items())).encode()).hexdigest(),
    ]
    if device.type == "cuda":
        backends: Any = torch.backends  # parts of it have no types
        about += [torch.cuda.get_device_name(device), str(backends.cudnn.version())]
    return about
