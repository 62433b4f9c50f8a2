"""Attention with a memory: keys and values of a prompt in every layer, gates on input positions.

Models of transformers send their attention through one function, chosen by name. While a memory is
in place that name leads here: the keys and values of the layer are put before the layer's own, the
mask grows with them, and gates weigh what may be attended to. The function that was chosen before
does the arithmetic, so scaling, biases, soft caps and grouped heads stay the model's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from softprompts.backbones.fused_attention import NAME as FUSED
from softprompts.backbones.fused_attention import Spans, Wanted, add_biases, attend_row, fits
from softprompts.backbones.gating import mix
from softprompts.backbones.memory import KeyValues, Memory, Slot
from softprompts.backbones.narrowing import end_narrowing
from softprompts.backbones.packing import NAME as PACKED
from softprompts.backbones.packing import Active, Packing, implementation
from softprompts.backbones.tail import Tail
from softprompts.errors import BackboneError

INTERFACE = "softprompts"
"""The name under which transformers finds `attend`."""


@final
@dataclass(eq=False)
class Reading:
    """One pass through a stack: which attention runs next, and what it is given.

    Attributes:
        stack: the half that is read.
        memory: what its attentions are given.
        base: the attention implementation that the model was loaded with.
        slots: the attentions of the stack in the order they run; `None` while they are found.
        number: attentions that have run.
        seen: key, value and window of each attention, where they are recorded.
        packing: where the inputs stand, if they stand in one row.
        tail: where the last layer's output is read, while that layer runs.
        copies: how many targets that follow each other read the same input, each its own where 1.
    """

    stack: Literal["encoder", "decoder"]
    memory: Memory
    base: str
    slots: Sequence[Slot] | None
    number: int = 0
    seen: list[tuple[Tensor, Tensor, int | None]] | None = None
    packing: Packing | None = None
    tail: Tail | None = None
    copies: int = 1
    _joint: tuple[Tensor, Tensor | None, Tensor | None] | None = None

    def __post_init__(self) -> None:
        memory = self.memory
        if memory.prefixes or memory.gates is not None or memory.prefix_gates is not None:
            _ = self.group_memories  # now, not within a layer that is run again backwards

    @cached_property
    def group_memories(self) -> list[Memory]:
        """The memory of each group of a packing."""
        groups = [] if self.packing is None else self.packing.groups
        return [self.memory.take(group.inputs).cut(group.width) for group in groups]

    @cached_property
    def spans(self) -> Spans:
        """Where the inputs of a packing stand in the row; the queries that run may be fewer."""
        packing = self.packing
        assert packing is not None
        starts, counts = packing.starts.contiguous(), packing.lengths.contiguous()
        return Spans(starts, counts, starts, counts, packing.total, packing.total)

    @property
    def is_plain(self) -> bool:
        """Whether attention is given nothing, and inputs stand as the model expects them."""
        memory = self.memory
        given = (memory.gates, memory.prefix_gates, memory.lengths, memory.below, self.packing)
        return self.copies == 1 and not memory.prefixes and all(one is None for one in given)

    def add_bias(self, mask: Tensor | None, options: dict[str, Any]) -> Tensor | None:
        """Return a mask with a bias of positions, which is taken from the options.

        Layers that share both get the same tensor.
        """
        bias = options.pop("position_bias", None)
        if bias is None:
            return mask
        if self._joint is None or self._joint[0] is not bias or self._joint[1] is not mask:
            self._joint = (bias, mask, add_biases(mask, bias))
        return self._joint[2]

    def next_slot(self) -> Slot | None:
        """Return the attention that runs now."""
        number, self.number = self.number, self.number + 1
        return None if self.slots is None else self.slots[number]

    def gates_of(self, slot: Slot | None, memory: Memory) -> Tensor | None:
        """Return the gates on an attention's own keys."""
        if slot is None or (self.stack == "decoder" and slot.kind == "self" and self._is_half):
            return None
        return memory.gates

    @property
    def _is_half(self) -> bool:
        """Whether this decoder reads an encoder, whose positions the gates are about."""
        return self.slots is not None and any(slot.kind == "cross" for slot in self.slots)


_ACTIVE: Active[Reading] = Active()


def reading(state: Reading, configs: Sequence[Any]) -> AbstractContextManager[None]:
    """Send the attention of some configurations through `attend` while this lasts."""
    name = INTERFACE if state.packing is None else PACKED  # which it is already within a pass
    return implementation(configs, name, _ACTIVE, state)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend with the active memory; called by transformers.

    Gated attention weighs every key with its gate, `w_ij = g_j e^{s_ij} / sum_k g_k e^{s_ik}`. A
    gate of 0 hides a key, and its gradient says what showing it would do. Every position reads
    itself, whatever its gate.

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
    state, wanted = _ACTIVE.states[-1], end_narrowing()
    if state.seen is not None:
        state.seen.append((key, value, options.get("sliding_window")))
    slot = state.next_slot()
    if state.tail is not None:
        key, value, attention_mask = state.tail.keep(module, key, value, attention_mask)
    states = (query, key, value)
    if len(key) < len(query) and not _is_fused(state, states, attention_mask, slot, options):
        key, value = (one.repeat_interleave(state.copies, dim=0) for one in (key, value))
        if attention_mask is not None and len(attention_mask) > 1:
            attention_mask = attention_mask.repeat_interleave(state.copies, dim=0)
    if state.packing is None:
        given = (state.memory, state.gates_of(slot, state.memory), slot)
        return _attend(module, (query, key, value), attention_mask, given, options)
    pass_ = (state, slot, wanted)
    return _attend_packed(module, (query, key, value), attention_mask, pass_, options), None


def _is_fused(
    state: Reading,
    states: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    slot: Slot | None,
    options: dict[str, Any],
) -> bool:
    """Return whether compiled attention runs, on inputs as they stand, with nothing beside them."""
    is_given = slot is not None and slot in state.memory.prefixes
    is_gated = state.memory.gates is not None or state.memory.prefix_gates is not None
    return state.base == FUSED and not is_given and not is_gated and fits(states, mask, options)


def _attend_packed(
    module: nn.Module,
    states: tuple[Tensor, Tensor, Tensor],
    shared: Tensor | None,
    pass_: tuple[Reading, Slot | None, Wanted | None],
    options: dict[str, Any],
) -> Tensor:
    """Attend in each input of a packing. Shape `(1, places, heads, size)`."""
    state, slot, wanted = pass_
    packing, tail, (query, key, value) = state.packing, state.tail, states
    assert packing is not None
    options = dict(options)
    is_fused = _is_fused(state, states, shared, slot, options)
    shared = state.add_bias(shared, options)
    if is_fused:
        spans = state.spans
        if tail is not None:
            spans, shared = tail.spans(spans), tail.bias(shared)
        scaling = options.get("scaling")
        scaling = query.shape[3] ** -0.5 if scaling is None else scaling
        return attend_row(query, key, value, spans, shared, scaling, wanted)
    queries = packing.take(query) if tail is None else tail.take(query)
    parts = zip(queries, packing.take(key), packing.take(value), strict=True)
    outputs = []
    for group, memory, part in zip(packing.groups, state.group_memories, parts, strict=True):
        mask = group.mask(shared, query.dtype)
        if tail is not None:
            mask = tail.mask(group, mask)
        given = (memory, state.gates_of(slot, memory), slot)
        outputs.append(_attend(module, part, mask, given, options)[0])
    return packing.put(outputs) if tail is None else tail.put(outputs)


def _attend(
    module: nn.Module,
    states: Sequence[Tensor],
    attention_mask: Tensor | None,
    given: tuple[Memory, Tensor | None, Slot | None],
    options: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """Attend with a memory and gates on the attention's own keys."""
    (query, key, value), (memory, gates, slot) = states, given
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
        return _base(module, _ACTIVE.states[-1].base)(
            module, query, key, value, attention_mask, **options
        )
    mask = _visible(module, query, key, attention_mask)
    _, weights = _base(module, "eager")(module, query, key, value[..., :0], mask, **options)
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


def _base(module: nn.Module, name: str) -> Callable[..., tuple[Tensor, Any]]:
    """Return the attention function that a model would use by itself."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    function: Callable[..., tuple[Tensor, Any]] | None
    if name == "eager":
        home = sys.modules[type(module).__module__]
        function = getattr(home, "eager_attention_forward", None)
    else:
        function = ALL_ATTENTION_FUNCTIONS.get(name)
    if function is None:
        raise BackboneError(
            f"attention of {type(module).__name__} must have an implementation {name!r}, but has "
            "none."
        )
    return function
