"""Attention with a memory: through transformers' interface, in whatever model.

A model of transformers looks up its attention by the name in its configuration. While a layer runs
with a memory, that name leads to its `Pass`: keys and values are put before the layer's own, the
mask grows with them, and gates weigh what may be attended to. The function that was chosen before
does the arithmetic, so scaling, biases, soft caps and grouped heads stay the model's own.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from softprompts.backbones.gating import mix
from softprompts.backbones.memory import KeyValues, Memory, Slot
from softprompts.errors import BackboneError

T = TypeVar("T")


class Pass(ABC):
    """One pass through the layers of a half: what they do, and what their attention is given.

    Attributes:
        number: attentions of the half that have run, in the order they run.
    """

    number = 0

    @abstractmethod
    def run(self, call: Callable[[], T]) -> T:
        """Return what a call gives that runs the half; layers and attention come here meanwhile."""

    @abstractmethod
    def run_layer(
        self,
        number: int,
        layer: nn.Module,
        forward: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Run a layer and return what it gives.

        `number` counts runs of layers before this one; a layer may run more than once.
        """

    @abstractmethod
    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend within a layer; called by transformers.

        Args:
            module: the attention of the model.
            query: queries. Shape `(batch, heads, tokens, size)`.
            key: keys; heads may be fewer. Shape `(batch, heads, keys, size)`.
            value: values, of as many heads. Shape `(batch, heads, keys, size)`.
            attention_mask: what may be attended to, boolean or added to the scores, or `None`.
            options: whatever else the model gives its attention.

        Returns:
            The output. Shape `(batch, tokens, heads, size)`. And weights, where there are any.
        """


IMPLEMENTATIONS = {
    **{name: name for name in ("eager", "sdpa", "flash_attention_2")},
    **{name: f"softprompts-{name}" for name in ("plain", "fused")},
}
"""What transformers calls an implementation of attention, by its name in a recipe."""


@final
@dataclass(frozen=True, eq=False)
class Given:
    """What one attention is given beside its own keys and values.

    Attributes:
        memory: keys, values and gates for all attentions.
        base: the attention implementation that the model was loaded with.
        slot: which attention it is; `None` while attentions are found.
        gates: weight of each of its own keys; all 1 when `None`. Shape `(batch, keys)`.
    """

    memory: Memory
    base: str
    slot: Slot | None = None
    gates: Tensor | None = None


def attend(
    module: nn.Module,
    states: tuple[Tensor, Tensor, Tensor],
    attention_mask: Tensor | None,
    given: Given,
    options: Mapping[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """Attend with a memory and gates on the attention's own keys.

    Gated attention weighs every key with its gate, `w_ij = g_j e^{s_ij} / sum_k g_k e^{s_ik}`. A
    gate of 0 hides a key, and its gradient says what showing it would do. Every position reads
    itself, whatever its gate.

    `states` are queries, keys and values; see `Pass.attend` for all else.
    """
    (query, key, value), memory, slot, gates = states, given.memory, given.slot, given.gates
    kind: Any = type(module)
    options = dict(options)
    prefix = None if slot is None else memory.prefixes.get(slot)
    length = 0 if prefix is None else prefix.keys.shape[2]
    if slot is not None and prefix is not None:
        attention_mask = _visible(module, query, key, attention_mask)
        attention_mask = _longer_mask(query, key, attention_mask, prefix, slot.window)
        key = torch.cat([prefix.keys.to(key), key], dim=2)
        value = torch.cat([prefix.values.to(value), value], dim=2)
        if options.get("position_bias") is not None:
            options["position_bias"] = functional.pad(options["position_bias"], (length, 0))
    prefix_gates = memory.prefix_gates if prefix is not None else None
    if gates is None and prefix_gates is None:
        function = function_of(kind, given.base)
        return function(module, query, key, value, attention_mask, **options)
    mask = _visible(module, query, key, attention_mask)
    eager = function_of(kind, "eager")
    _, weights = eager(module, query, key, value[..., :0], mask, **options)
    copies = weights.shape[1] // value.shape[1]
    values = value if copies == 1 else value.repeat_interleave(copies, dim=1)
    joint = _joint_gates(prefix_gates, gates, length, key)
    span = _gated_span(memory, joint.shape[1], length)
    is_own = gates is not None and slot is not None and slot.kind == "self"
    is_whole = weights.shape[2] == weights.shape[3] - length
    own = span.stop - max(span.start, length) if is_own and is_whole else 0
    mixed = mix(weights, values, joint, span, own)
    return mixed.transpose(1, 2).contiguous(), weights


def _gated_span(memory: Memory, keys: int, length: int) -> slice:
    """Return the keys whose gates may be other than 1, `length` of a prefix coming first."""
    if memory.gates is None:
        return slice(0, length)
    if memory.gated is None or memory.prefix_gates is not None:
        return slice(0 if memory.prefix_gates is not None else length, keys)
    first, last = memory.gated
    return slice(first + length, last + length)


def _joint_gates(prefix: Tensor | None, gates: Tensor | None, length: int, key: Tensor) -> Tensor:
    """Return the gates of prefix and keys, 1 where there are none. Shape `(batch, keys)`."""
    batch, keys = key.shape[0], key.shape[2]
    parts = []
    if length:
        parts.append(key.new_ones(batch, length) if prefix is None else prefix.to(key))
    if gates is not None:
        parts.append(gates.to(key))
    missing = keys - sum(part.shape[1] for part in parts)
    if missing:
        parts.append(key.new_ones(batch, missing))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _longer_mask(
    query: Tensor, key: Tensor, mask: Tensor | None, prefix: KeyValues, window: int | None
) -> Tensor | None:
    """Return the mask with room for keys in front, which every query sees.

    Keys of the input's own first tokens stand at places from 0 on, queries behind those shown.
    """
    length, shown = prefix.keys.shape[2], prefix.shown
    is_far = prefix.is_input and window is not None
    if mask is None:
        if shown is None and not is_far:
            return None
        mask = query.new_zeros(1, 1, 1, key.shape[2])
    is_open = torch.ones(len(key), length, dtype=torch.bool, device=key.device)
    is_open = is_open if shown is None else shown.to(key.device).bool()
    front = is_open[:, None, None, :]  # (batch, 1, 1, length)
    if is_far and window is not None:
        places = torch.arange(max(length, query.shape[2]), device=key.device)
        queries = is_open.sum(dim=1)[:, None] + places[: query.shape[2]]  # (batch, tokens)
        is_near = places[:length] > queries[..., None] - window  # (batch, tokens, length)
        front = front & is_near[:, None]  # (batch, 1, tokens, length)
    lowest = torch.finfo(mask.dtype).min
    front = torch.zeros_like(front, dtype=mask.dtype).masked_fill(~front, lowest)
    front = front.expand(-1, mask.shape[1], max(mask.shape[2], front.shape[2]), -1)
    return torch.cat([front, mask.expand(len(key), -1, front.shape[2], -1)], dim=3)


def _visible(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor | None:
    """Return a mask that says what a causal model leaves unsaid, in the form eager code adds."""
    tokens, keys = query.shape[2], key.shape[2]
    if mask is None and getattr(module, "is_causal", False) and tokens > 1:
        places = torch.arange(keys, device=key.device)
        mask = (places <= places[keys - tokens :, None])[None, None]  # (1, 1, tokens, keys)
    if mask is not None and mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, lowest)
    return mask


@cache
def function_of(kind: Any, name: str) -> Callable[..., tuple[Tensor, Any]]:
    """Return the attention function that a kind of attention would use by itself."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    function: Callable[..., tuple[Tensor, Any]] | None
    if name == "eager":
        home = sys.modules[kind.__module__]
        function = getattr(home, "eager_attention_forward", None)
    else:
        function = ALL_ATTENTION_FUNCTIONS.get(name)
    if function is None:
        raise BackboneError(
            f"attention of {kind.__name__} must have an implementation {name!r}, but has none."
        )
    return function
