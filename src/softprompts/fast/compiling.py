"""Layers compiled with `torch.compile`: whole, or all of a layer but its attention.

A layer that runs as the model runs it is compiled whole. Where inputs are joined, or attention is
given a memory, attention depends on what no graph can hold; then the layer's parts beside it are
compiled, each by itself. A break in a graph is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from types import MethodType
from typing import Any, final

import torch
from torch import nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from softprompts.backbones.sources import first_line
from softprompts.errors import BackboneError

BACKEND = "inductor"
"""What makes code of graphs; tests that need none take `aot_eager`."""

_MOST_VARIANTS = 64
"""How often one function may be compiled; past it torch raises.

Layers of one class share their code, and so do all backbones of a process that have such layers.
Variants are for a batch of one, for masks, for what asks for a gradient, for dtypes; lengths and
other batch sizes make none. Torch is told so only while a layer runs: what else a process compiles
keeps its own limit. That takes some microseconds a call.
"""


@final
class CompiledLayer:
    """A layer's compiled forms; nothing is compiled before it first runs.

    Args:
        layer: the layer; it stays as it is.

    Attributes:
        whole: the layer's forward, compiled.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.whole = _compiled(layer)
        self._parts = [(part, _compiled(part)) for part in parts_of(layer)]

    @contextmanager
    def by_parts(self) -> Iterator[None]:
        """Run the parts beside attention compiled while this lasts."""
        for part, forward in self._parts:
            part.forward = forward
        try:
            yield
        finally:
            for part, _ in self._parts:
                del part.forward


def parts_of(layer: nn.Module) -> list[nn.Module]:
    """Return the largest modules of a layer that hold no attention.

    Single modules of PyTorch, such as a linear layer, are left out: each is one kernel already.
    Attention is known by its code, which asks transformers for an implementation.

    Args:
        layer: the layer.

    Returns:
        The parts; empty where attention is not found, or all the rest is single modules.
    """
    holders = {id(layer)} if _is_attention(layer) else set()
    for module in layer.modules():
        if any(_is_attention(one) for one in module.modules()):
            holders.add(id(module))
    if not holders:
        return []
    found = _beside(layer, holders)
    return [part for part in found if any(True for _ in part.parameters())]


def _beside(module: nn.Module, holders: Set[int]) -> list[nn.Module]:
    """Return the modules of transformers that lie in none but holders of attention and lists."""
    found = []
    for child in module.children():
        if id(child) in holders or isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            found += _beside(child, holders)
        elif type(child).__module__.startswith("transformers.models."):
            found.append(child)
    return found


def _is_attention(module: nn.Module) -> bool:
    forward = inspect.unwrap(type(module).forward)
    code = getattr(forward, "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def _compiled(module: nn.Module) -> Callable[..., Any]:
    """Return the forward of a module's class, compiled, with errors of our own."""
    from torch._dynamo import config
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    own: Any = type(module).forward
    forward = MethodType(own, module)
    run = torch.compile(forward, fullgraph=True, dynamic=True, backend=BACKEND)

    def run_or_say(*arguments: Any, **options: Any) -> Any:
        if is_in_torch_dispatch_mode():  # tensors are counted, and torch compiles nothing there
            return forward(*arguments, **options)
        limit = config.recompile_limit
        if limit < _MOST_VARIANTS:  # by hand: `config.patch` takes four times as long
            config.recompile_limit = _MOST_VARIANTS
        try:
            return run(*arguments, **options)
        except FailOnRecompileLimitHit as error:
            raise BackboneError(
                f"{type(module).__name__} must be compiled at most {config.recompile_limit} times "
                "in a process, but is needed in more forms. Set `backbone.compile` to false."
            ) from error
        except TorchDynamoException as error:
            cause = getattr(error, "inner_exception", error)
            raise BackboneError(
                f"{type(module).__name__} must be one graph for torch.compile, but is not: "
                f"{first_line(cause)} Set `backbone.compile` to false."
            ) from error
        finally:
            if limit < _MOST_VARIANTS:
                config.recompile_limit = limit

    return run_or_say
