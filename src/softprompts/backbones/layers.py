"""The layers of a backbone's half, run with a memory in their attention or recomputed backwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from softprompts.backbones.attention import INTERFACE, Reading, attend, reading
from softprompts.backbones.compiling import CompiledLayer, parts_of
from softprompts.backbones.fused_attention import Wanted
from softprompts.backbones.memory import Memory, Slot
from softprompts.backbones.narrowing import narrowing
from softprompts.backbones.packing import NAME as PACKED
from softprompts.backbones.packing import (
    Packing,
    biased_attentions,
    packed_masks,
    square_biases,
)
from softprompts.backbones.spreading import is_spread, wrapped_forwards
from softprompts.backbones.tail import InterruptedLayerError, Tail
from softprompts.errors import BackboneError


@final
@dataclass(frozen=True)
class Route:
    """How a batch is read.

    Attributes:
        packing: where the inputs stand, if they stand in one row.
        first_position: position of an input's first token in such a row; `None` where the model
            takes no positions.
        tail: where the output of the last layer is read, if that is not everywhere.
        num_runs: how often a layer runs in one pass, where there is a tail.
        copies: how many targets that follow each other read the same input of an encoder.
        wanted: places of a row whose embeddings have a gradient; all when `None`.
    """

    packing: Packing | None = None
    first_position: int | None = None
    tail: Tail | None = None
    num_runs: int = 0
    copies: int = 1
    wanted: Wanted | None = None

    @property
    def is_direct(self) -> bool:
        """Whether all is read as the model would read it."""
        return self.packing is None and self.tail is None and self.copies == 1

    def lead(self, inputs: dict[str, Any], gather: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Return a model's arguments and the places to read, as this way has them.

        Args:
            inputs: arguments for a padded batch.
            gather: positions that are read, long. Shape `(batch, slots)`.
        """
        if self.packing is None:
            return inputs, gather
        return self.packing.inputs(inputs, self.first_position), self.packing.at(gather)


_DIRECT = Route()
_NONE_COMPILED: Mapping[int, CompiledLayer] = {}


@final
class Stack:
    """The layers of an encoder or a decoder.

    Nothing of the model is changed for good: while `running` lasts, each layer's `forward` is
    wrapped, so that a layer which is run again in the backward pass finds the same memory.

    Args:
        body: the half.
        name: which half it is.
        is_compiled: run compiled layers where gradients are taken.
        lock: held by a thread while it runs the model, which is changed meanwhile; one for both
            halves.
    """

    def __init__(
        self,
        body: nn.Module,
        name: Literal["encoder", "decoder"],
        is_compiled: bool = False,
        lock: threading.RLock | None = None,
    ) -> None:
        self.name, self.body, self.is_compiled = name, body, is_compiled
        self.lock = lock or threading.RLock()
        self.layers = _outermost_layers(body)
        self.is_spread = is_spread(body)
        found: list[Any] = [getattr(module, "config", None) for module in body.modules()]
        configs = {id(c): c for c in found if hasattr(c, "_attn_implementation")}
        self.configs = tuple(configs.values())
        names = {config._attn_implementation for config in self.configs}
        self.base: str = names.pop() if len(names) == 1 else ""
        self.slots: tuple[Slot, ...] | None = None
        self._compiled: dict[int, CompiledLayer] = {}

    @cached_property
    def has_parts(self) -> bool:
        """Whether each layer has something beside its attention that compiling changes."""
        return all(parts_of(layer) for layer in self.layers)

    @cached_property
    def _biased(self) -> list[Any]:
        """Attentions that make a bias of relative positions."""
        return biased_attentions(self.body)

    @contextmanager
    def running(
        self,
        memory: Memory | None,
        is_checkpointed: bool = False,
        route: Route = _DIRECT,
    ) -> Iterator[None]:
        """Run the layers with a memory while this lasts; other threads wait.

        Args:
            memory: what the attention is given; `None` leaves it alone.
            is_checkpointed: forget what a layer computed, and compute it again backwards.
            route: how the batch is read.

        Raises:
            BackboneError: if layers are compiled that have nothing to compile beside attention,
                and attention is given a memory.
        """
        is_checkpointed = is_checkpointed and torch.is_grad_enabled()
        with self.lock:
            compiled = self._find_compiled(memory) if torch.is_grad_enabled() else {}
            if memory is None and route.is_direct and not is_checkpointed and not compiled:
                yield
                return
            state = None
            if memory is not None or not route.is_direct:
                given, packing = memory or Memory(), route.packing
                state = Reading(
                    self.name, given, self.base, self.slots, packing=packing, copies=route.copies
                )
            with (
                self._packed(route.packing),
                self._wrapped(state, is_checkpointed, route, compiled=compiled),
            ):
                yield

    @contextmanager
    def _packed(self, packing: Packing | None) -> Iterator[None]:
        """Let the half make masks and biases of positions for packed inputs while this lasts."""
        if packing is None:
            yield
            return
        with packed_masks(packing, self.configs), square_biases(self._biased, packing.longest):
            yield

    def _find_compiled(self, memory: Memory | None) -> dict[int, CompiledLayer]:
        """Return the compiled forms of layers by identity; none where they are not compiled."""
        if not self.is_compiled:
            return {}
        if memory is not None and not self.has_parts:
            raise BackboneError(
                "`backbone.compile` must be false for a prompt that reaches into the attention of "
                f"{type(self.layers[0]).__name__}, which has no parts beside it to compile."
            )
        if not self._compiled:
            self._compiled = {id(layer): CompiledLayer(layer) for layer in self.layers}
        return self._compiled

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Count how often a layer runs; yields a list that grows by one each time."""
        runs: list[int] = []
        with self.lock:
            handles = [
                layer.register_forward_pre_hook(lambda *_: runs.append(1)) for layer in self.layers
            ]
            try:
                yield runs
            finally:
                for handle in handles:
                    handle.remove()

    def find_slots(self, run: Callable[[], Any], num_encoder_tokens: int | None) -> None:
        """Find the attentions by running the half once.

        Args:
            run: runs it on a short input.
            num_encoder_tokens: length of the encoder's input, for a decoder that reads one; it must
                differ from the decoder's own.
        """
        state = Reading(self.name, Memory(), self.base, None, seen=[])
        places: list[int] = []
        register()
        with self._wrapped(state, False, places=places):
            run()
        slots = []
        for number, (layer, seen) in enumerate(zip(places, state.seen or (), strict=True)):
            key, value, window = seen
            if key.shape[3] != value.shape[3]:
                raise BackboneError(
                    "keys and values must be of one width for a prompt that reaches into "
                    f"attention, but are of {key.shape[3]} and {value.shape[3]}."
                )
            kind: Literal["self", "cross"] = "self"
            if num_encoder_tokens is not None and key.shape[2] == num_encoder_tokens:
                kind = "cross"
            slots.append(Slot(self.name, number, layer, kind, key.shape[1], key.shape[3], window))
        self.slots = tuple(slots)

    def record(self, run: Callable[[], Any]) -> dict[Slot, tuple[Tensor, Tensor]]:
        """Return keys and values of each attention in one run. Shape of `KeyValues` each."""
        state = Reading(self.name, Memory(), self.base, self.slots, seen=[])
        with self._wrapped(state, False):
            run()
        seen = [(key, value) for key, value, _ in state.seen or ()]
        return dict(zip(self.slots or (), seen, strict=True))

    def outputs(
        self, run: Callable[[], Any], num_layers: int, given: list[Any] | None = None
    ) -> list[Any]:
        """Return what each of the lowest layers gives in one run; those above are not run.

        Args:
            run: runs the half.
            num_layers: how many are run.
            given: takes the arguments of every layer, of those above too.
        """
        found: list[Any] = []

        def wrap(_: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def run_or_pass(*arguments: Any, **options: Any) -> Any:
                if given is not None:
                    given.append((arguments, options))
                if len(found) < num_layers:
                    found.append(forward(*arguments, **options))
                return found[-1]

            return run_or_pass

        with self.lock, wrapped_forwards(self.layers, wrap):
            run()
        return found

    def _is_first(self, slot: Slot) -> bool:
        """Return whether an attention is the first of its layer."""
        slots = self.slots or ()
        return slot.number == 0 or slots[slot.number - 1].layer != slot.layer

    @contextmanager
    def _wrapped(
        self,
        state: Reading | None,
        is_checkpointed: bool,
        route: Route = _DIRECT,
        places: list[int] | None = None,
        compiled: Mapping[int, CompiledLayer] = _NONE_COMPILED,
    ) -> Iterator[None]:
        """Wrap the `forward` of each layer; a layer may run more than once."""
        firsts = [slot.number for slot in self.slots or () if self._is_first(slot)]
        count = 0

        def wrap(layer: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            own = compiled.get(id(layer))

            def run(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                layer, count = count, count + 1
                first = 0 if state is None else state.number
                if firsts:
                    first = firsts[layer % len(firsts)]

                if state is not None and state.memory.below is not None:
                    num_layers, states = state.memory.below
                    if layer < num_layers:
                        packing = state.packing
                        return states if packing is None else packing.pack(states)

                is_last = route.tail is not None and layer == route.num_runs - 1
                is_plain = state is None or (own is not None and state.is_plain and not is_last)

                def once(*arguments: Any, **options: Any) -> Any:
                    if state is None or is_plain:
                        return (forward if own is None else own.whole)(*arguments, **options)
                    state.number = first
                    parts = nullcontext() if own is None else own.by_parts()
                    wanted = route.wanted if layer == 0 and not is_last else None
                    with reading(state, self.configs), parts, narrowing(wanted):
                        if route.tail is not None and is_last:
                            return _run_tail(forward, state, route.tail, arguments, options)
                        output = forward(*arguments, **options)
                    if places is not None:
                        places.extend([layer] * (state.number - first))
                    return output

                if not is_checkpointed:
                    return once(*arguments, **options)

                def again(*arguments: Any, **options: Any) -> Any:
                    with self.lock:  # backwards, `running` has ended
                        return once(*arguments, **options)

                # to its end in a spread model, whose hooks then take weights out of memory again
                with set_checkpoint_early_stop(not self.is_spread):
                    return checkpoint(
                        again, *arguments, use_reentrant=False, preserve_rng_state=False, **options
                    )

            return run

        with self.lock, wrapped_forwards(self.layers, wrap):
            yield


def _run_tail(
    forward: Callable[..., Any],
    state: Reading,
    tail: Tail,
    arguments: Sequence[Any],
    options: dict[str, Any],
) -> Any:
    """Run a layer where its output is read."""
    first, state.tail = state.number, tail
    tail.begin(arguments[0] if arguments else options["hidden_states"])
    try:
        with suppress(InterruptedLayerError):
            forward(*arguments, **options)
        state.number = first
        narrow = {name: tail.narrow(value) for name, value in options.items()}
        output = forward(*map(tail.narrow, arguments), **narrow)
    finally:
        state.tail = None
    return tail.widen(output)


def register() -> None:
    """Make `attend` known to transformers under its names."""
    from transformers import AttentionInterface

    for name in (INTERFACE, PACKED):
        AttentionInterface.register(name, attend)


def _outermost_layers(body: nn.Module) -> Sequence[nn.Module]:
    """Return the members of module lists that lie in no other module list."""
    found: list[nn.Module] = []

    def walk(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(child, nn.ModuleList):
                found.extend(child)
            else:
                walk(child)

    walk(body)
    return found
