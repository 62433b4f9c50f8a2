"""What a prompt gives attention beside the input: keys and values by layer, gates on positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, final

import torch
from torch import Tensor
from torch.nn import functional


@final
@dataclass(frozen=True)
class Slot:
    """One attention of the backbone.

    Attributes:
        stack: the half it belongs to; a decoder-only model has a decoder alone.
        number: place among the attentions of its stack, in the order they run.
        layer: the layer it belongs to, from 0.
        kind: `self`, or `cross` where a decoder reads the encoder.
        heads: heads of its keys, fewer than of its queries where they are grouped.
        size: width of one head.
        window: how many keys a position sees at most, its own included; all before it when `None`.
    """

    stack: Literal["encoder", "decoder"]
    number: int
    layer: int
    kind: Literal["self", "cross"]
    heads: int
    size: int
    window: int | None = None

    @property
    def width(self) -> int:
        """Numbers of one key, all heads."""
        return self.heads * self.size


@final
@dataclass(frozen=True, eq=False)
class KeyValues:
    """Keys and values for one attention.

    Attributes:
        keys: keys. Shape `(batch, heads, length, size)`.
        values: values. Shape `(batch, heads, length, size)`.
        shown: which of them an input has, else they are padding; all when `None`. Shape
            `(batch, length)`.
        is_input: whether they are the input's own first, which a layer's window may hide.
    """

    keys: Tensor
    values: Tensor
    shown: Tensor | None = None
    is_input: bool = False

    def take(self, inputs: Tensor) -> KeyValues:
        """Return those of chosen inputs, in order. Shape of `inputs` `(targets,)`."""
        keys, values = self.keys.index_select(0, inputs), self.values.index_select(0, inputs)
        return replace(self, keys=keys, values=values, shown=_take(self.shown, inputs))


@final
@dataclass(frozen=True, eq=False)
class Memory:
    """What attention reads beside the input, and what of the input it may read.

    Attributes:
        prefixes: keys and values by attention; those not named get none.
        prefix_gates: weight of each in attention, 0 or 1 in value, with a gradient; all 1 when
            `None`. Shape `(batch, length)`.
        gates: likewise for the positions of the (encoder) input. Shape `(batch, tokens)`.
        gated: first position whose gate may be other than 1 and the one behind the last, for all
            inputs alike; any may when `None`.
        lengths: keys that each input has, padding aside; those of the longest prefix when `None`.
            Shape `(batch,)`.
    """

    prefixes: Mapping[Slot, KeyValues] = field(default_factory=dict)
    prefix_gates: Tensor | None = None
    gates: Tensor | None = None
    gated: tuple[int, int] | None = None
    lengths: Tensor | None = None

    @property
    def offsets(self) -> Tensor | None:
        """First position of each input behind its keys; `None` without any. Shape `(batch,)`."""
        if self.lengths is not None:
            return self.lengths
        for pair in self.prefixes.values():
            batch, _, length, _ = pair.keys.shape
            return pair.keys.new_full((batch,), length, dtype=torch.long)
        return None

    def take(self, inputs: Tensor) -> Memory:
        """Return the memory of chosen inputs, in order. Shape of `inputs` `(targets,)`."""
        return replace(
            self,
            prefixes={slot: pair.take(inputs) for slot, pair in self.prefixes.items()},
            prefix_gates=_take(self.prefix_gates, inputs),
            gates=_take(self.gates, inputs),
            lengths=_take(self.lengths, inputs),
        )

    def cut(self, width: int) -> Memory:
        """Return the memory of inputs that are padded to another width."""
        if self.gates is None:
            return self
        missing = max(0, width - self.gates.shape[1])
        gates = functional.pad(self.gates[:, :width], (0, missing), value=1.0)
        gated = None if self.gated is None else (self.gated[0], min(self.gated[1], width))
        return replace(self, gates=gates, gated=gated)


def _take(value: Tensor | None, inputs: Tensor) -> Tensor | None:
    return None if value is None else value.index_select(0, inputs)
