"""Linear layers with frozen weights, which multiply with packed ones.

Layers that read the same values, such as those of queries, keys and values, are one product.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, cast, final
from weakref import ref

import torch
from torch import Tensor, nn

from softprompts.fast.hints import Hints
from softprompts.fast.weight_layouts import Weights, can_prepack, multiply
from softprompts.machine_memory import total_bytes

_LOG = logging.getLogger(__name__)

_LEAST_WEIGHTS = 128 * 128
"""Entries of a weight from which joined pays: in float32 with 128 squared, not yet with 64."""

_MOST_SHARE = 0.125
"""Largest part of the machine's memory that laid-out weights may take."""


def prepack(model: nn.Module, run: Callable[[], Any]) -> int:
    """Let a model's linear layers multiply with laid-out weights; return how many do.

    A weight is packed when it is first multiplied with, and for the way back when a gradient first
    comes back. A layer computes as it did before whenever its weights ask for a gradient, or are
    not those it has now.

    Args:
        model: a model of transformers on the processor; the `forward` of its linear layers is
            replaced, but of those that have a hook of accelerate, which stands there.
        run: runs the model on something short, to see which layers read the same.
    """
    chosen = list(_linear_layers(model))
    size = 2 * sum(layer.weight.numel() * layer.weight.element_size() for layer in chosen)
    most = int(_MOST_SHARE * total_bytes(torch.device("cpu")))
    if size > most:
        _LOG.info("weights are not packed: they would take %d bytes, more than %d", size, most)
        return 0
    hints = hints_of(model)
    for layers in _together(chosen, run):
        prepacked = _Prepacked(layers, hints)
        for number, layer in enumerate(layers):
            layer.forward = partial(prepacked.forward, number)
    return len(chosen)


def laid_out_bytes(model: nn.Module) -> int:
    """Return the bytes of what has been packed so far of a model's weights.

    Args:
        model: a model; copies of it that share its weights share what is packed.
    """
    owners = (getattr(one, "__self__", None) for one in _replaced(model))
    weights = {id(one.weights): one.weights for one in owners if isinstance(one, _Prepacked)}
    return sum(one.num_bytes for one in weights.values())


def hints_of(model: nn.Module) -> Hints:
    """Return the hints that a model's modules listen to; new ones where none does.

    Args:
        model: the model; a copy of a model has hints of its own.
    """
    for forward in _replaced(model):
        owner = getattr(forward, "__self__", forward)
        hints = getattr(owner, "hints", None)
        if isinstance(hints, Hints):
            return hints
    return Hints()


def _replaced(model: nn.Module) -> Iterator[Any]:
    """Yield what stands in the place of the `forward` of modules."""
    for module in model.modules():
        forward = vars(module).get("forward")
        if isinstance(forward, partial):
            yield forward.func


def _linear_layers(model: nn.Module) -> Iterator[Any]:
    """Yield the layers whose weights are worth joined; `Conv1D` is one, with its weight turned."""
    from transformers.pytorch_utils import Conv1D

    for layer in model.modules():
        if type(layer) in (nn.Linear, Conv1D) and not hasattr(layer, "_hf_hook"):
            weight = cast(Tensor, layer.weight)
            if weight.numel() >= _LEAST_WEIGHTS and can_prepack(weight.dtype):
                yield layer


def _together(chosen: Sequence[Any], run: Callable[[], Any]) -> list[tuple[Any, ...]]:
    """Return layers in groups: those that always read the same values, one after the other."""
    seen: list[tuple[Any, Tensor]] = []  # the values too, so that no other takes their place

    def see(layer: Any, given: tuple[Any, ...]) -> None:
        seen.append((layer, given[0] if given else torch.empty(0)))  # by name: with no other

    handles = [layer.register_forward_pre_hook(see) for layer in chosen]
    try:
        with torch.no_grad():
            run()
    except Exception as error:  # whatever a model does with what it does not know
        _LOG.info("no layers are put together, since reading fails: %s", error)
        seen.clear()
    finally:
        for handle in handles:
            handle.remove()
    runs = [
        tuple(id(layer) for layer, _ in calls)
        for _, calls in groupby(seen, lambda call: (id(call[1]), call[0].weight.dtype))
    ]
    others: dict[int, set[tuple[int, ...]]] = {}
    for one in runs:
        for number in one:
            others.setdefault(number, set()).add(one)
    joint = {
        one for one in runs if len(set(one)) == len(one) and all(others[i] == {one} for i in one)
    }
    layers = {id(layer): layer for layer in chosen}
    alone = layers.keys() - {number for one in joint for number in one}
    return [tuple(layers[i] for i in one) for one in (*joint, *((i,) for i in alone))]


@final
class _Prepacked:
    """What linear layers that read the same values do instead of their own `forward`.

    The first computes for all; the others get their part when they are given the same values next.

    Args:
        layers: one or more, in the order in which they run.
        hints: what is known of the values that they are given.
    """

    def __init__(self, layers: Sequence[nn.Linear], hints: Hints) -> None:
        self._layers = tuple(map(ref, layers))  # a layer has this as its `forward`: no ring
        self.weights, self.hints = Weights(layers), hints
        self._kept: _Kept | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Prepacked:
        copied = memo[id(self)] = _Prepacked.__new__(_Prepacked)
        layers = copy.deepcopy(self.layers, memo)
        copied._layers, copied.weights = tuple(map(ref, layers)), self.weights
        copied.hints = copy.deepcopy(self.hints, memo)
        copied._kept = None
        return copied

    @property
    def layers(self) -> tuple[nn.Linear, ...]:
        """The layers, as long as somebody holds them."""
        return tuple(cast(nn.Linear, layer()) for layer in self._layers)

    def forward(self, number: int, *given: Tensor, **named: Tensor) -> Tensor:
        """Return what a layer makes of values. Shape `(..., in)`, then `(..., out)`."""
        layer = cast(nn.Linear, self._layers[number]())
        if named or len(given) != 1:
            return type(layer).forward(layer, *given, **named)
        (values,) = given
        if number == 0 and self._fits(values):
            return self._compute(values)
        kept = self._kept
        found = None if kept is None else kept.take(number, values)
        if kept is not None and not kept.parts:
            self._kept = None
        if found is not None:
            return found
        return type(layer).forward(layer, values)

    def _fits(self, values: Tensor) -> bool:
        return (
            values.dtype == self.weights.dtype
            and values.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and self.weights.are_of(self.layers)
        )

    def _compute(self, values: Tensor) -> Tensor:
        """Return what the first layer makes of values; keep what the others do."""
        source = self.hints.row_of(values)
        if source is None:
            outputs = multiply(values, self.weights, self.hints)
        else:
            row, joined = source
            outputs = tuple(map(joined.part, multiply(row, self.weights, self.hints)))
        if len(outputs) > 1:
            self._kept = _Kept(values, dict(enumerate(outputs[1:], start=1)))
        return outputs[0]


@final
class _Kept:
    """What layers behind the first will be asked for, and of what values it was made."""

    def __init__(self, values: Tensor, parts: dict[int, Tensor]) -> None:
        self._values, self._circumstances = values, _circumstances(values)
        self.parts = parts

    def take(self, number: int, values: Tensor) -> Tensor | None:
        """Return a layer's part, once; `None` where that was made of other values."""
        if values is not self._values or _circumstances(values) != self._circumstances:
            return None
        return self.parts.pop(number, None)


def _circumstances(values: Tensor) -> tuple[int, bool]:
    """Return what must be the same for what was made of values to be theirs still."""
    version = 0 if values.is_inference() else values._version
    return version, torch.is_grad_enabled()
