"""Rows in every layer: keys and values that each attention reads before the input's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import final

import torch
from torch import Generator, Tensor, nn

from softprompts.backbones.memory import KeyValues, Slot
from softprompts.backbones.units import Units
from softprompts.errors import PromptError
from softprompts.prompts.depths.base import Build, Depth, build_in_unit
from softprompts.prompts.rows.base import Rows


@final
class EveryLayerDepth(Depth):
    """A row is one key and one value for each attention of the layers from `from_layer` on.

    Rows start as the keys and values that the frozen backbone makes of the initializer's
    embeddings when it reads those as its whole input. Most rows kinds parameterize each attention
    by itself, keys and values together as `2 l` rows; kinds that say `is_joint` parameterize all
    layers of one sort of attention (encoder, decoder, cross) at once.

    Reference:
        Li and Liang (2021), arXiv 2101.00190, section 4; Liu et al. (2021), arXiv 2110.07602.

    Differences:
        Every input position sees every row, in layers with a sliding window too, and relative
        position biases are 0 for rows. Positions of a decoder's tokens count from the number of
        rows on, as with cached keys; those of encoders and of a half count from 0.
    """

    is_input = False

    def __init__(
        self,
        slots: Sequence[Slot],
        read: Callable[[Tensor], Mapping[Slot, KeyValues]],
        *,
        from_layer: int = 0,
    ) -> None:
        chosen = [slot for slot in slots if slot.layer >= from_layer]
        if not chosen:
            last = max((slot.layer for slot in slots), default=-1)
            raise PromptError(
                f"`prompt.depth.from_layer` must be at most {last}, but is {from_layer}."
            )
        self.slots = sorted(chosen, key=lambda slot: (_sort(slot), slot.number))
        self.read = read

    def build_rows(
        self,
        kind: type[Rows],
        build: Build,
        initial: Tensor,
        draw: Callable[[int], Generator],
        units: Units | None = None,
    ) -> Rows:
        """Return rows that start as the keys and values of the embeddings given.

        In units, each attention's keys have theirs, and its values theirs. A joint kind starts
        there in a unit that it knows, and else where its network leads from the embeddings.
        """
        if kind.needs_words:
            raise PromptError(
                "`prompt.rows` must not be made of words with depth every-layer, whose rows are "
                f"keys and values, but is {kind.__name__}."
            )
        if kind.changes_tokens:
            raise PromptError(
                "`prompt.rows` must leave tokens as they are embedded with depth every-layer, "
                f"whose rows are keys and values, but is {kind.__name__}."
            )
        length, is_read = len(initial), units is not None or not kind.is_joint
        read = self.read(initial) if is_read else {}
        found = {slot: (_flat(pair.keys), _flat(pair.values)) for slot, pair in read.items()}
        if kind.is_joint:
            groups = [list(group) for _, group in groupby(self.slots, key=_sort)]
            parts = []
            for number, group in enumerate(groups):
                make = partial(build, width=2 * sum(slot.width for slot in group))
                unit, start = None, 1.0
                if units is not None:
                    start, own = units.embedding, units.attentions
                    wide = [torch.tensor(own[slot]).repeat_interleave(slot.width) for slot in group]
                    unit = torch.cat(wide)  # (width,)
                    if kind.has_unit:
                        pairs = [states for slot in group for states in found[slot]]
                        make = partial(make, base=torch.cat(pairs, dim=1))  # (length, width)
                parts.append(build_in_unit(kind, make, initial, draw(number), unit, start))
            return LayeredRows(parts, length)
        parts = []
        for number, slot in enumerate(self.slots):
            both, unit = torch.cat(found[slot]), None  # (2 length, width)
            if units is not None:
                unit = torch.tensor(units.attentions[slot]).repeat_interleave(length)[:, None]
            parts.append(build_in_unit(kind, build, both.float(), draw(number), unit))
        return LayeredRows(parts, length)

    def prefixes(self, rows: Tensor) -> Mapping[Slot, KeyValues]:
        """Return the keys and values that rows are."""
        batch, length, _ = rows.shape
        result, begin = {}, 0
        for slot in self.slots:
            pair = []
            for _ in range(2):
                part = rows[..., begin : begin + slot.width]  # (batch, length, width)
                part = part.reshape(batch, length, slot.heads, slot.size)
                pair.append(part.transpose(1, 2))  # (batch, heads, length, size)
                begin += slot.width
            result[slot] = KeyValues(pair[0], pair[1])
        return result


@final
class LayeredRows(Rows):
    """Rows of several attentions side by side.

    A part is rows of one attention, keys above values; or of one sort of attention, with keys and
    values of all its layers side by side.
    """

    def __init__(self, parts: Sequence[Rows], length: int) -> None:
        nn.Module.__init__(self)
        self.parts = nn.ModuleList(parts)
        self.length, self.draws = length, any(part.draws for part in parts)

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return `[K_1 V_1 K_2 V_2 …]`. Shape `(length, width)`."""
        values = [part(generator) for part in self.parts]
        wide = [
            v if v.shape[0] == self.length else torch.cat(v.split(self.length), dim=1)
            for v in values
        ]
        return torch.cat(wide, dim=1)


def _sort(slot: Slot) -> tuple[str, str]:
    """Return which sort of attention it is; the encoder's first, then the decoder's, then cross."""
    return ("2" if slot.kind == "cross" else "0" if slot.stack == "encoder" else "1", slot.kind)


def _flat(states: Tensor) -> Tensor:
    """Put heads side by side. Shapes `(1, heads, length, size)` and `(length, width)`."""
    return states[0].transpose(0, 1).flatten(1)
