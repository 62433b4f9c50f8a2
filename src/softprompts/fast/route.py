"""How a batch is read with less work, and the pass through a half that reads it so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from torch import Tensor, nn

from softprompts.backbones.attention import Given, Pass, attend
from softprompts.backbones.layers import Stack
from softprompts.backbones.memory import Memory, Slot
from softprompts.fast.compiling import CompiledLayer
from softprompts.fast.fused_attention import NAME as FUSED
from softprompts.fast.fused_attention import add_biases, attend_row, fits
from softprompts.fast.hints import Hints
from softprompts.fast.joined_inputs import JoinedInputs, biased_attentions, square_biases
from softprompts.fast.spans import Spans, Wanted
from softprompts.fast.tail import InterruptedLayerError, Tail


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

    @property
    def is_direct(self) -> bool:
        """Whether all is read as the model would read it."""
        is_whole = self.tail is None and self.below is None
        return is_whole and self.joined is None and self.copies == 1

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
class FastPass(Pass):
    """A pass that goes a route, with a memory in its attention.

    Args:
        stack: the half.
        memory: what attention is given.
        route: how the batch is read.
        hints: what the modules of the model are told of values.
        compiled: compiled forms of layers, by the layer's identity.
    """

    def __init__(
        self,
        stack: Stack,
        memory: Memory | None,
        route: Route,
        hints: Hints,
        compiled: Mapping[int, CompiledLayer],
    ) -> None:
        self._stack, self._route, self._hints = stack, route, hints
        self._memory, self._compiled = memory or Memory(), compiled
        self._is_plain = memory is None and route.joined is None and route.copies == 1
        self._is_tail = False
        self._joint: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
        gates = (self._memory.gates, self._memory.prefix_gates)
        if self._memory.prefixes or any(one is not None for one in gates):
            _ = self._group_memories  # now, not within a layer that is run again backwards

    @contextmanager
    def surrounding(self) -> Iterator[None]:
        """Let the half make masks and biases of positions for joined inputs while this lasts."""
        joined = self._route.joined
        with ExitStack() as stack:
            if joined is not None:
                stack.enter_context(self._stack.lock)
                stack.enter_context(self._stack.attending(self))
                biased = biased_attentions(self._stack.body)
                stack.enter_context(square_biases(biased, joined.longest))
            yield

    def make_mask(self, **options: Any) -> Tensor | None:
        """Return the mask of joined inputs; called by transformers."""
        joined = self._route.joined
        assert joined is not None
        return joined.small_mask(**options)

    def run_layer(
        self,
        number: int,
        layer: nn.Module,
        forward: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Run a layer, or pass it over where what it gives is known."""
        route, own = self._route, self._compiled.get(id(layer))
        if route.below is not None and number < route.below[0]:
            states = route.below[1]
            return states if route.joined is None else route.joined.join(states)
        is_last = route.tail is not None and number == route.num_runs - 1
        if self._is_plain and not is_last:
            return (forward if own is None else own.whole)(*arguments, **options)
        parts = nullcontext() if own is None else own.by_parts()
        wanted = route.wanted if number == 0 and not is_last else None
        with self._stack.attending(self), parts, self._hints.narrowing(wanted):
            if is_last:
                return self._run_tail(forward, arguments, options)
            return forward(*arguments, **options)

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
            narrow = {name: tail.narrow(value) for name, value in options.items()}
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
        wanted = self._hints.end_narrowing()
        number, self.number = self.number, self.number + 1
        slots, tail = self._stack.slots, self._route.tail
        slot = None if slots is None else slots[number]
        if self._is_tail and tail is not None:
            key, value, attention_mask = tail.keep(module, key, value, attention_mask)
        states, copies = (query, key, value), self._route.copies
        is_fused = self._is_fused(states, attention_mask, slot, options)
        if len(key) < len(query) and not is_fused:
            key, value = (one.repeat_interleave(copies, dim=0) for one in (key, value))
            states = (query, key, value)
            if attention_mask is not None and len(attention_mask) > 1:
                attention_mask = attention_mask.repeat_interleave(copies, dim=0)
        if self._route.joined is None:
            given = self._given(self._memory, slot)
            return attend(module, states, attention_mask, given, options)
        options = dict(options)
        shared = self._add_bias(attention_mask, options)
        if is_fused:
            return self._attend_row(states, shared, options.get("scaling"), wanted), None
        return self._attend_groups(module, states, shared, slot, options), None

    def _given(self, memory: Memory, slot: Slot | None) -> Given:
        stack = self._stack
        return Given(memory, stack.base, slot, stack.gates_of(slot, memory))

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
        queries = joined.take(query) if tail is None else tail.take(query)
        parts = zip(queries, joined.take(key), joined.take(value), strict=True)
        outputs = []
        for group, memory, part in zip(joined.groups, self._group_memories, parts, strict=True):
            mask = group.mask(shared, query.dtype)
            if tail is not None:
                mask = tail.mask(group, mask)
            outputs.append(attend(module, part, mask, self._given(memory, slot), options)[0])
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

    def _is_fused(
        self,
        states: tuple[Tensor, Tensor, Tensor],
        mask: Tensor | None,
        slot: Slot | None,
        options: dict[str, Any],
    ) -> bool:
        """Return whether compiled attention runs, on inputs as they stand, nothing beside them."""
        memory = self._memory
        is_given = slot is not None and slot in memory.prefixes
        is_gated = memory.gates is not None or memory.prefix_gates is not None
        is_there = self._stack.base == FUSED and not is_given and not is_gated
        return is_there and fits(states, mask, options)

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
