"""The layers of a backbone's half, run with a memory in their attention or recomputed backwards."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from operator import attrgetter
from typing import Any, Literal, TypeVar, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from softprompts.backbones.attention import Given, Pass, attend
from softprompts.backbones.memory import Memory, Slot
from softprompts.backbones.placing import is_spread
from softprompts.errors import BackboneError

T = TypeVar("T")

_NUMBERS = count()
_NAME = attrgetter("_attn_implementation")


@final
class Stack:
    """The layers of an encoder or a decoder.

    Nothing of the model is changed for good: while `run` lasts, each layer's `forward` is
    wrapped, so that a layer which is run again in the backward pass finds the same memory.

    Args:
        body: the half.
        name: which half it is.
        lock: held by a thread while it runs the model, which is changed meanwhile; one for both
            halves.

    Attributes:
        slots: its attentions in the order they run; `None` before they are found.
        base: the attention implementation that it was loaded with; empty where parts differ.
        interface: the name under which transformers finds the attention of the pass that runs.
        current: that pass, while a layer of it runs.
    """

    def __init__(
        self,
        body: nn.Module,
        name: Literal["encoder", "decoder"],
        lock: threading.RLock | None = None,
    ) -> None:
        self.name, self.body = name, body
        self.lock = lock or threading.RLock()
        self.layers = _outermost_layers(body)
        self.is_spread = is_spread(body)
        found: list[Any] = [getattr(module, "config", None) for module in body.modules()]
        configs = {id(c): c for c in found if hasattr(c, "_attn_implementation")}
        self.configs = tuple(configs.values())
        self._names = tuple(map(_NAME, self.configs))
        self.base: str = self._names[0] if len(set(self._names)) == 1 else ""
        self.slots: tuple[Slot, ...] | None = None
        self.current: Pass | None = None
        self._firsts: list[int] = []  # the number of each layer's first attention
        self.interface = f"softprompts-{next(_NUMBERS)}"
        _register(self)

    def run(
        self, call: Callable[[], T], given: Pass | None = None, is_checkpointed: bool = False
    ) -> T:
        """Return what a call gives while layers run as a pass has them; other threads wait.

        Args:
            call: runs the half.
            given: the pass; `None` leaves the layers alone.
            is_checkpointed: forget what a layer computed, and compute it again backwards.
        """
        is_checkpointed = is_checkpointed and torch.is_grad_enabled()
        with self.lock:
            if given is None and not is_checkpointed:
                return call()
            wrap = partial(self._wrap, given, is_checkpointed, count())
            return call_wrapped(
                self.layers, wrap, call if given is None else partial(given.run, call)
            )

    def attend_by(self, given: Pass | None) -> Pass | None:
        """Send the attention of the half through a pass, and return the one before.

        Args:
            given: the pass; `None` leaves attention as the model has it.
        """
        before, self.current = self.current, given
        if before is None:
            self._names = tuple(map(_NAME, self.configs))
        for config, own in zip(self.configs, self._names, strict=True):
            config._attn_implementation = own if given is None else self.interface
        return before

    def _wrap(
        self,
        given: Pass | None,
        is_checkpointed: bool,
        numbers: Iterator[int],
        layer: nn.Module,
        forward: Callable[..., Any],
    ) -> Callable[..., Any]:
        """Return what a layer does in a pass; it may run more than once."""

        def run(*arguments: Any, **options: Any) -> Any:
            number, firsts = next(numbers), self._firsts
            if given is not None and not is_checkpointed:
                given.number = firsts[number % len(firsts)] if firsts else given.number
                return given.run_layer(number, layer, forward, arguments, options)
            first = 0 if given is None else given.number
            if firsts:
                first = firsts[number % len(firsts)]

            def again(*arguments: Any, **options: Any) -> Any:
                with self.lock:  # backwards, `run` has ended
                    if given is None:
                        return forward(*arguments, **options)
                    given.number = first
                    return given.run_layer(number, layer, forward, arguments, options)

            # to its end in a spread model, whose hooks then take weights out of memory again
            with set_checkpoint_early_stop(not self.is_spread):
                return checkpoint(
                    again, *arguments, use_reentrant=False, preserve_rng_state=False, **options
                )

        return run

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
        seen: list[tuple[int, Tensor, Tensor, int | None]] = []
        self.run(run, MemoryPass(self, Memory(), seen))
        slots = []
        for number, (layer, key, value, window) in enumerate(seen):
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
        self._firsts = [
            slot.number
            for before, slot in zip([None, *slots], slots, strict=False)
            if before is None or before.layer != slot.layer
        ]

    def record(self, run: Callable[[], Any]) -> dict[Slot, tuple[Tensor, Tensor]]:
        """Return keys and values of each attention in one run. Shape of `KeyValues` each."""
        seen: list[tuple[int, Tensor, Tensor, int | None]] = []
        self.run(run, MemoryPass(self, Memory(), seen))
        pairs = [(key, value) for _, key, value, _ in seen]
        return dict(zip(self.slots or (), pairs, strict=True))

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

        with self.lock:
            call_wrapped(self.layers, wrap, run)
        return found

    def gates_of(self, slot: Slot | None, memory: Memory) -> Tensor | None:
        """Return the gates on an attention's own keys."""
        if slot is None:
            return None
        is_behind = any(one.kind == "cross" for one in self.slots or ())
        # a decoder's own positions are not those of the encoder, which the gates are about
        return None if is_behind and slot.kind == "self" else memory.gates


@final
class MemoryPass(Pass):
    """A pass in which attention is given a memory, and all else is as the model has it.

    Args:
        stack: the half.
        memory: what attention is given.
        seen: takes layer, key, value and window of each attention, where they are recorded.
    """

    def __init__(
        self,
        stack: Stack,
        memory: Memory,
        seen: list[tuple[int, Tensor, Tensor, int | None]] | None = None,
    ) -> None:
        self._stack, self._memory, self._seen = stack, memory, seen
        self._layer = 0

    def run(self, call: Callable[[], T]) -> T:
        """Run the half as it is."""
        return call()

    def run_layer(
        self,
        number: int,
        layer: nn.Module,
        forward: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Run a layer as it is, its attention with the memory."""
        self._layer, before = number, self._stack.attend_by(self)
        try:
            return forward(*arguments, **options)
        finally:
            self._stack.attend_by(before)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend with the memory."""
        number, self.number = self.number, self.number + 1
        if self._seen is not None:
            self._seen.append((self._layer, key, value, options.get("sliding_window")))
        slots = self._stack.slots
        slot = None if slots is None else slots[number]
        gates = self._stack.gates_of(slot, self._memory)
        given = Given(self._memory, self._stack.base, slot, gates)
        return attend(module, (query, key, value), attention_mask, given, options)


def _register(stack: Stack) -> None:
    """Let transformers find the attention of a stack's pass, for as long as there is the stack."""
    from transformers import AttentionInterface

    there = weakref.ref(stack)

    def run(module: nn.Module, *states: Any, **options: Any) -> Any:
        stack = there()
        assert stack is not None
        assert stack.current is not None
        return stack.current.attend(module, *states, **options)

    AttentionInterface.register(stack.interface, run)


def _outermost_layers(body: nn.Module) -> Sequence[nn.Module]:
    """Return the members of module lists that lie in no other module list."""
    found: list[nn.Module] = []
    for child in body.children():
        found += child if isinstance(child, nn.ModuleList) else _outermost_layers(child)
    return found


def call_wrapped(
    layers: Sequence[nn.Module],
    wrap: Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]],
    call: Callable[[], T],
) -> T:
    """Return what a call gives while the `forward` of modules is wrapped.

    Args:
        layers: the modules, each once; what was there before comes back after.
        wrap: takes a module and its forward, and returns what runs instead.
        call: what is called.
    """
    before = []
    for layer in layers:
        before.append(layer.__dict__.get("forward"))
        layer.forward = wrap(layer, layer.forward)
    try:
        return call()
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:  # a hook's
                layer.forward = own


def gather_positions(states: Tensor, gather: Tensor) -> Tensor:
    """Return states at positions. Shapes `(batch, tokens, hidden)` and `(batch, slots)`."""
    batch, tokens, hidden = states.shape
    check_gather(gather, batch)
    firsts = torch.arange(batch, device=gather.device)[:, None] * tokens
    flat = states.reshape(-1, hidden).index_select(0, (gather + firsts).flatten())
    return flat.view(*gather.shape, hidden)  # whole rows: gathering entries takes six times as long


def check_gather(gather: Tensor, batch: int) -> None:
    """Check that there are positions for each input.

    Args:
        gather: positions, long. Shape `(batch, slots)`.
        batch: how many inputs there are.

    Raises:
        BackboneError: if its shape is another.
    """
    if gather.dim() != 2 or gather.shape[0] != batch or not gather.shape[1]:
        raise BackboneError(
            f"gather must have shape ({batch}, k) with k > 0, but has {tuple(gather.shape)}."
        )


def call_only_at(body: nn.Module, gather: Tensor, call: Callable[[], T]) -> T:
    """Return what a call gives while `body` gives its last hidden state at some positions only.

    Args:
        body: the encoder or decoder.
        gather: the positions, long. Shape `(batch, slots)`.
        call: runs it once.

    Raises:
        BackboneError: if it does not.
    """
    num_calls = 0

    def keep(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        states = output.last_hidden_state
        output.last_hidden_state = gather_positions(states, gather.to(states.device))
        return output

    handle = body.register_forward_hook(keep)
    try:
        found = call()
    finally:
        handle.remove()
    if num_calls != 1:
        raise BackboneError(f"the body must run once before the head, but ran {num_calls} times.")
    return found
