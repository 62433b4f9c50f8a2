"""How a batch is read with less work, and the pass through a half that reads it so."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, final

from torch import Tensor, nn

from softprompts.backbones.attention import Given, Pass, attend, function_of
from softprompts.backbones.layers import Stack, check_gather
from softprompts.backbones.memory import Memory, Slot
from softprompts.fast.compiling import CompiledLayer
from softprompts.fast.fused_attention import NAME as FUSED
from softprompts.fast.fused_attention import add_biases, attend_row, fits
from softprompts.fast.hints import Hints
from softprompts.fast.joined_inputs import JoinedInputs, square_biases
from softprompts.fast.spans import Spans, Wanted
from softprompts.fast.tail import InterruptedLayerError, Tail

T = TypeVar("T")

_LEAST_SAVING = 4
"""Positions for each that is read, so that the last layer is cut to those that are."""


@final
@dataclass(frozen=True)
class Route:
    """How a batch is read.

    Attributes:
        joined: where the inputs stand, if they stand in one row.
        first_position: position of an input's first token in such a row; `None` where the model
            takes no positions.
        tail: where the output of the last layer is read, if that is not everywhere.
        num_runs: how often a layer runs in one pass, where there is a tail.
        copies: how many targets that follow each other read the same input of an encoder.
        wanted: places of a row whose embeddings have a gradient; all when `None`.
        below: layers that are not run, and what the last of them gave, padded. Shape
            `(batch, tokens, hidden)`.
    """

    joined: JoinedInputs | None = None
    first_position: int | None = None
    tail: Tail | None = None
    num_runs: int = 0
    copies: int = 1
    wanted: Wanted | None = None
    below: tuple[int, Tensor] | None = None

    def lead(self, inputs: dict[str, Any], gather: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Return a model's arguments and the places to read, as this way has them.

        Args:
            inputs: arguments for a padded batch.
            gather: positions that are read, long. Shape `(batch, slots)`.
        """
        if self.joined is None:
            return inputs, gather
        return self.joined.inputs(inputs, self.first_position), self.joined.at(gather)


@final
@dataclass(frozen=True)
class Shortcuts:
    """Ways to read a batch with less work.

    Attributes:
        joins: whether inputs may stand one behind the other in one row, and that pays.
        first_position: position of an input's first token in such a row; `None` where the model
            takes no positions.
        num_runs: how often a layer runs in one pass.
        trims: whether the last run may be cut to the positions that are read.
        shares: whether a decoder's targets may read the same keys of an input, made once.
    """

    joins: bool = False
    first_position: int | None = None
    num_runs: int = 0
    trims: bool = False
    shares: bool = False

    def whole(self, mask: Tensor, wanted: Tensor | None = None) -> Route:
        """Return the way for a batch of which all is read; see `route`."""
        joined = JoinedInputs(mask) if self.joins and len(mask) > 1 else None
        places = None if joined is None or wanted is None else joined.wanted(wanted)
        return Route(joined, self.first_position, wanted=places)

    def route(
        self,
        mask: Tensor,
        gather: Tensor | None,
        memory: Memory | None,
        wanted: Tensor | None = None,
    ) -> Route:
        """Return the way for a batch.

        Args:
            mask: 1 on positions that count. Shape `(batch, tokens)`.
            gather: positions that are read; all when `None`. Shape `(batch, slots)`.
            memory: what attention is given beside the input.
            wanted: positions whose embeddings have a gradient, boolean; all when `None`. Shape
                `(batch, tokens)`.
        """
        if gather is None:
            return Route()
        check_gather(gather, len(mask))
        whole = self.whole(mask, wanted)
        is_trimmed = self.trims and _LEAST_SAVING * gather.shape[1] <= mask.shape[1]
        if memory is not None and _asks_for_places(memory):
            is_trimmed = False
        tail = Tail(gather, whole.joined) if is_trimmed else None
        return replace(whole, tail=tail, num_runs=self.num_runs)


def _asks_for_places(memory: Memory) -> bool:
    """Return whether attention must know where queries stand.

    A position reads itself, whatever its gate; and windows over an input's own kept keys move.
    """
    has_windows = any(
        pair.is_input and slot.window is not None for slot, pair in memory.prefixes.items()
    )
    return memory.gates is not None or has_windows


@final
class FastPass(Pass):
    """A pass that goes a route, with a memory in its attention.

    Args:
        stack: the half.
        memory: what attention is given.
        route: how the batch is read.
        hints: what the modules of the model are told of values.
        compiled: compiled forms of layers, by the layer's identity.
        biased: attentions of the half that make a bias of relative positions.
    """

    def __init__(
        self,
        stack: Stack,
        memory: Memory | None,
        route: Route,
        hints: Hints,
        compiled: Mapping[int, CompiledLayer],
        biased: Sequence[Any] = (),
    ) -> None:
        self._stack, self._route, self._hints = stack, route, hints
        self._memory, self._compiled = memory or Memory(), compiled
        self._is_plain = memory is None and route.joined is None and route.copies == 1
        self._is_tail, self._biased = False, biased
        self._joint: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
        memory = self._memory
        is_gated = memory.gates is not None or memory.prefix_gates is not None
        self._is_given = is_gated or bool(memory.prefixes)
        self._may_fuse = stack.base == FUSED and not is_gated
        if self._is_given:
            _ = self._group_memories  # now, not within a layer that is run again backwards

    def run(self, call: Callable[[], T]) -> T:
        """Run the half; for joined inputs it makes masks and biases of positions meanwhile."""
        joined = self._route.joined
        if joined is None:
            return call()
        before = self._stack.attend_by(self)
        try:
            if not self._biased:
                return call()
            with square_biases(self._biased, joined.longest):
                return call()
        finally:
            self._stack.attend_by(before)

    def make_mask(self, **options: Any) -> Tensor | None:
        """Return the mask of one joined input of the greatest width; called by transformers.

        All inputs begin at the same corner of it, so that causal and sliding masks are right for
        each. Shape `(1, 1, width, width)`.
        """
        from transformers.masking_utils import eager_mask

        joined = self._route.joined
        assert joined is not None
        options |= {"q_length": joined.longest, "kv_length": joined.longest, "attention_mask": None}
        mask: Tensor | None = eager_mask(**options)
        return mask

    def run_layer(
        self,
        number: int,
        layer: nn.Module,
        forward: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Run a layer, or pass it over where what it gives is known."""
        route, own, stack = self._route, self._compiled.get(id(layer)), self._stack
        if route.below is not None and number < route.below[0]:
            states = route.below[1]
            return states if route.joined is None else route.joined.join(states)
        is_last = route.tail is not None and number == route.num_runs - 1
        if self._is_plain and not is_last:
            return (forward if own is None else own.whole)(*arguments, **options)
        wanted = route.wanted if number == 0 and not is_last else None
        before = stack.current
        if before is not self:  # as where a layer is run again backwards
            stack.attend_by(self)
        try:
            self._hints.wanted = wanted
            with nullcontext() if own is None else own.by_parts():
                if is_last:
                    return self._run_tail(forward, arguments, options)
                return forward(*arguments, **options)
        finally:
            self._hints.wanted = None
            if before is not self:
                stack.attend_by(before)

    def _run_tail(
        self, forward: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Run a layer where its output is read.

        An exception leaves it when its attention has keys and values: a layer has no other exit,
        and what follows attention on all positions is the work that is saved.
        """
        first, tail = self.number, self._route.tail
        assert tail is not None
        tail.begin(arguments[0] if arguments else options["hidden_states"])
        self._is_tail = True
        try:
            with suppress(InterruptedLayerError):
                forward(*arguments, **options)
            self.number = first
            narrow = dict(options)
            for name, value in options.items():
                if isinstance(value, Tensor | tuple):
                    narrow[name] = tail.narrow(value)
            output = forward(*map(tail.narrow, arguments), **narrow)
        finally:
            self._is_tail = False
        return tail.widen(output)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend in each input of the batch or row, with the memory."""
        tail, joined = self._route.tail, self._route.joined
        wanted, self._hints.wanted = self._hints.wanted, None
        number, self.number = self.number, self.number + 1
        slots, copies = self._stack.slots, self._route.copies
        slot = None if slots is None else slots[number]
        if self._is_tail and tail is not None:
            key, value, attention_mask = tail.keep(module, key, value, attention_mask)
        states = (query, key, value)
        # compiled attention runs on inputs as they stand, nothing beside them
        is_alone = self._may_fuse and (slot is None or slot not in self._memory.prefixes)
        is_fused = is_alone and fits(states, attention_mask, options)
        if len(key) < len(query) and not is_fused:
            key, value = (one.repeat_interleave(copies, dim=0) for one in (key, value))
            states = (query, key, value)
            if attention_mask is not None and len(attention_mask) > 1:
                attention_mask = attention_mask.repeat_interleave(copies, dim=0)
        if joined is None:
            return self._attend(module, states, attention_mask, self._memory, slot, options)
        if "position_bias" in options:
            options = dict(options)
            attention_mask = self._add_bias(attention_mask, options)
        if is_fused:
            return self._attend_row(states, attention_mask, options.get("scaling"), wanted), None
        return self._attend_groups(module, states, attention_mask, slot, options), None

    def _attend(
        self,
        module: nn.Module,
        states: tuple[Tensor, Tensor, Tensor],
        mask: Tensor | None,
        memory: Memory,
        slot: Slot | None,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as the model does by itself, or with a memory where there is one."""
        stack = self._stack
        kind: Any = type(module)
        if not self._is_given:
            return function_of(kind, stack.base)(module, *states, mask, **options)
        given = Given(memory, stack.base, slot, stack.gates_of(slot, memory))
        return attend(module, states, mask, given, options)

    def _attend_row(
        self,
        states: tuple[Tensor, Tensor, Tensor],
        shared: Tensor | None,
        scaling: float | None,
        wanted: Wanted | None,
    ) -> Tensor:
        """Attend in the row as it is. Shape `(1, places, heads, size)`."""
        spans, tail = self._spans, self._route.tail
        if self._is_tail and tail is not None:
            spans, shared = tail.spans(spans), tail.bias(shared)
        scaling = states[0].shape[3] ** -0.5 if scaling is None else scaling
        return attend_row(*states, spans, shared, scaling, wanted)

    def _attend_groups(
        self,
        module: nn.Module,
        states: tuple[Tensor, Tensor, Tensor],
        shared: Tensor | None,
        slot: Slot | None,
        options: dict[str, Any],
    ) -> Tensor:
        """Attend in groups of inputs of like length. Shape `(1, places, heads, size)`."""
        joined, (query, key, value) = self._route.joined, states
        assert joined is not None
        tail = self._route.tail if self._is_tail else None
        if tail is None:
            queries, keys, values = joined.take(query, key, value)
        else:
            queries, (keys, values) = tail.take(query), joined.take(key, value)
        outputs = []
        for number, group in enumerate(joined.groups):
            mask = group.mask(shared, query.dtype)
            if tail is not None:
                mask = tail.mask(group, mask)
            memory = self._group_memories[number] if self._is_given else self._memory
            part = (queries[number], keys[number], values[number])
            outputs.append(self._attend(module, part, mask, memory, slot, options)[0])
        return joined.put(outputs) if tail is None else tail.put(outputs)

    @cached_property
    def _group_memories(self) -> list[Memory]:
        """The memory of each group of a joined."""
        groups = [] if self._route.joined is None else self._route.joined.groups
        return [self._memory.take(group.inputs).cut(group.width) for group in groups]

    @cached_property
    def _spans(self) -> Spans:
        """Where the inputs of a joined stand in the row; the queries that run may be fewer."""
        joined = self._route.joined
        assert joined is not None
        starts, counts = joined.starts.contiguous(), joined.lengths.contiguous()
        return Spans(starts, counts, starts, counts, joined.total, joined.total)

    def _add_bias(self, mask: Tensor | None, options: dict[str, Any]) -> Tensor | None:
        """Return a mask with a bias of positions, which is taken from the options.

        Layers that share both get the same tensor.
        """
        bias = options.pop("position_bias", None)
        if bias is None:
            return mask
        if self._joint[0] is not bias or self._joint[1] is not mask:
            self._joint = (bias, mask, add_biases(mask, bias))
        return self._joint[2]


def register_masks(stack: Stack) -> None:
    """Let transformers find the masks of a stack's pass, under the name of its attention."""
    from transformers.masking_utils import AttentionMaskInterface

    there = weakref.ref(stack)

    def make(**options: Any) -> Tensor | None:
        stack = there()
        assert stack is not None
        assert isinstance(stack.current, FastPass)
        return stack.current.make_mask(**options)

    AttentionMaskInterface.register(stack.interface, make)
