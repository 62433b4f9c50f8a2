"""Inputs of a batch put one behind the other in one row, so that no padding is read.

All of a transformer but its attention works on each position by itself. Attention gets the inputs
back one by one, in groups of like length, padded to a width that matrix kernels like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, final

import torch
from torch import Tensor, nn

from softprompts.encoding.batch import cut_by_size
from softprompts.errors import BackboneError
from softprompts.fast.spans import Wanted

_LEAST_ROW, _ROW_SHARE = 32, 64
"""The row is padded to a multiple of a power of two, the largest within a 64th of it.

So few lengths occur: a new one costs the matrix library a few hundredths of an update with laid-out
weights, and a fifth without.
"""

_WIDTH_MULTIPLE = 32
"""Inputs are padded to a multiple of this inside attention."""

_LEAST_PADDING = 5
"""A row is remembered where at least one in so many positions of its batch is padding."""

_GROUP_OVERHEAD = 1 << 13
"""What one more group costs, in entries of an attention matrix."""

_GROUP_SIZES = frozenset(1 << power for power in range(16))
"""How many inputs a group may have.

So few shapes occur: the matrix library pays half a millisecond for each product of a new one.
"""


@final
class Group:
    """Inputs that attention takes together.

    Attributes:
        inputs: which of the batch, long. Shape `(group,)`.
        width: positions of each, padding included.
        places: where in the row each position is; padding is the row's last. Shape
            `(group, width)`.
        is_padding: whether a position is padding, or `None` where none is. Shape
            `(group, width)`.
    """

    def __init__(self, inputs: Tensor, width: int, places: Tensor, is_padding: Tensor) -> None:
        self.inputs, self.width, self.places = inputs, width, places
        self.is_padding = is_padding if bool(is_padding.any()) else None
        self._masks: dict[int, tuple[Tensor | None, Tensor | None]] = {}

    def mask(self, shared: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Return what may be attended to, in the form that is added to scores.

        Args:
            shared: the same for all inputs, where a model has one. Shape
                `(1, 1, width, width)`.
            dtype: of the scores.

        Returns:
            Shape `(group, 1, width, width)`, or of one row for all; `None` where all may
            be.
        """
        key = id(shared)
        if key not in self._masks:
            self._masks[key] = (shared, self._combine(shared, dtype))
        return self._masks[key][1]

    def _combine(self, shared: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if shared is not None:
            shared = shared[:, :, : self.width, : self.width]
        if self.is_padding is None:
            return None if shared is None else shared.expand(len(self.inputs), -1, -1, -1)
        lowest = torch.finfo(dtype).min
        padding = self.is_padding[:, None, None, :]  # (group, 1, 1, width)
        if shared is None:
            return torch.zeros_like(padding, dtype=dtype).masked_fill(padding, lowest)
        return shared.masked_fill(padding, lowest)


@final
class JoinedInputs:
    """Where the positions of a padded batch stand in one row.

    Args:
        attention_mask: 1 on positions that count, which stand at the left. Shape
            `(batch, tokens)`.

    Attributes:
        size: length of the row, with at least one place of padding at its end.
        places: where in the row each position is; padding is at the row's end. Shape
            `(batch, tokens)`.
        sources: flat index of each place's position in the batch; 0 for padding. Shape `(size,)`.
        positions: each place's position in its input, 0 for padding. Shape `(size,)`.
        lengths: positions of each input, padding aside. Shape `(batch,)`.
        starts: where in the row each input begins. Shape `(batch,)`.
        total: positions of all inputs.
        longest: positions of the longest input, up to a multiple of 32.

    Raises:
        BackboneError: if a position that counts stands behind one that does not.
    """

    def __init__(self, attention_mask: Tensor) -> None:
        lengths = attention_mask.sum(dim=1)
        counts = lengths.tolist()
        total, device = sum(counts), attention_mask.device
        self.total = total
        multiple = max(_LEAST_ROW, 1 << max(total // _ROW_SHARE, 1).bit_length() - 1)
        self.size = -(-(total + 1) // multiple) * multiple
        starts = lengths.cumsum(dim=0) - lengths
        self.lengths, self.starts = lengths, starts
        steps = torch.arange(attention_mask.shape[1], device=device)
        is_there = steps < lengths[:, None]  # (batch, tokens)
        if not torch.equal(is_there, attention_mask.bool()):
            raise BackboneError(
                "attention_mask must be 1 at the left of each input and 0 behind, but has a gap."
            )
        self.places = torch.where(is_there, starts[:, None] + steps, self.size - 1)
        rest = self.size - total
        flat = torch.arange(attention_mask.numel(), device=device).view_as(attention_mask)
        self.sources = torch.cat([flat[is_there], flat.new_zeros(rest)])
        self.positions = torch.cat([steps.expand_as(flat)[is_there], flat.new_zeros(rest)])
        self._widths = [-(-count // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE for count in counts]
        self.longest = max(self._widths)
        self._indices: dict[int, tuple[list[Tensor], Tensor]] = {}

    @cached_property
    def groups(self) -> list[Group]:
        """What attention takes together, where it cannot take the row as it is."""
        widths = self._widths
        squares = [width * width for width in widths]
        cuts = cut_by_size(squares, len(widths), _GROUP_OVERHEAD, allowed=_GROUP_SIZES)
        groups = []
        for cut in cuts:
            groups.append(self._group(cut, max(map(widths.__getitem__, cut))))
        return groups

    def _group(self, chosen: Sequence[int], width: int) -> Group:
        inputs = torch.tensor(chosen, device=self.places.device)
        places = self.places.index_select(0, inputs)[:, :width]
        missing = width - places.shape[1]
        if missing:
            places = torch.nn.functional.pad(places, (0, missing), value=self.size - 1)
        return Group(inputs, width, places, places >= self.total)

    def join(self, values: Tensor) -> Tensor:
        """Put the inputs one behind the other; padding at the end of the row is 0.

        Args:
            values: one entry a position. Shape `(batch, tokens, ...)`.

        Returns:
            Shape `(1, size, ...)`.
        """
        row = values.flatten(0, 1).index_select(0, self.sources[: self.total])
        rest = row.new_zeros(self.size - self.total, *row.shape[1:])
        return torch.cat([row, rest])[None]

    def part(self, row: Tensor) -> Tensor:
        """Return the inputs of a row as a batch; padding is whatever the row has at its end.

        Args:
            row: one entry a place. Shape `(1, size, hidden)`.

        Returns:
            Padding has no gradient. Shape `(batch, tokens, hidden)`.
        """
        batch: Tensor = _Part.apply(row, self)  # type: ignore[no-untyped-call]
        return batch

    @property
    def is_padded(self) -> bool:
        """Whether much of the batch is padding, so that the row is worth remembering."""
        num_places = self.places.numel()
        return bool(_LEAST_PADDING * (num_places - self.size) >= num_places)

    def inputs(self, inputs: Mapping[str, Any], offset: int | None) -> dict[str, Any]:
        """Return a model's arguments, for the row.

        Args:
            inputs: arguments for a padded batch.
            offset: the first position of an input, where the model takes positions.
        """
        joined = dict(inputs)
        for name, value in inputs.items():
            if isinstance(value, Tensor) and name != "attention_mask":
                joined[name] = self.join(value)
        joined["attention_mask"] = torch.ones_like(self.positions)[None]
        if offset is not None and "position_ids" not in joined:
            joined["position_ids"] = self.positions[None] + offset
        return joined

    def at(self, gather: Tensor) -> Tensor:
        """Return where in the row positions of the inputs are. Shape `(1, batch * slots)`.

        A position of padding, which a readout may look at to no effect, is the input's first: at
        the row's end, which all inputs share, its gradient could reach other inputs.

        Args:
            gather: positions, long. Shape `(batch, slots)`.
        """
        places = self.places.gather(1, gather)  # (batch, slots)
        return torch.where(places < self.total, places, self.places[:, :1]).flatten()[None]

    def wanted(self, mask: Tensor) -> Wanted:
        """Return places that a gradient is asked for. Shape of the mask `(batch, tokens)`."""
        steps = torch.arange(mask.shape[1], device=mask.device)
        first = torch.where(mask, steps, len(steps)).amin(dim=1)
        last = torch.where(mask, steps, -1).amax(dim=1)
        has_some = last >= 0
        return Wanted(
            self.places[mask],
            self.size,
            torch.where(has_some, first, 0),
            torch.where(has_some, last - first + 1, 0),
        )

    def take(self, *rows: Tensor) -> list[Sequence[Tensor]]:
        """Return the queries, keys or values of each group, for each of several rows.

        Args:
            rows: one a place. Shape `(1, heads, size, width)` each.

        Returns:
            For each row one a group. Shape `(group, heads, tokens, width)` each.
        """
        flat = _Take.apply(self, *rows)  # type: ignore[no-untyped-call]
        count, found = len(self.groups), []
        for first in range(0, len(flat), count):
            found.append(flat[first : first + count])
        return found

    def put(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return what attention gives for each place, 0 at the row's end.

        Args:
            outputs: one a group. Shape `(group, tokens, heads, width)` each.

        Returns:
            Shape `(1, size, heads, width)`.
        """
        return _Put.apply(self, *outputs)  # type: ignore[no-any-return, no-untyped-call]

    def _find_indices(self, heads: int) -> tuple[list[Tensor], Tensor]:
        """Return where groups find what is theirs, and where the row finds it again.

        Args:
            heads: heads of what is moved.

        Returns:
            For each group, places in `(size, heads)`, in the order `(group, heads, tokens)`; and
            for each of `(size, heads)` the place in all of these together, one behind the last for
            padding.
        """
        device = self.places.device
        each = torch.arange(heads, device=device)[:, None]
        taken = [(g.places[:, None, :] * heads + each).flatten() for g in self.groups]
        joint = torch.cat(taken)
        back = torch.empty(self.size * heads, dtype=torch.long, device=device)
        back[joint] = torch.arange(len(joint), device=device)
        back[self.total * heads :] = len(joint)
        self._indices[heads] = (taken, back)
        return taken, back

    def gather(self, flat: Tensor, heads: int) -> list[Tensor]:
        """Move from the row to the groups. Shape of `flat` `(size * heads, width)`."""
        taken, _ = self._indices.get(heads) or self._find_indices(heads)
        found = []
        for group, index in zip(self.groups, taken, strict=True):
            part = flat.index_select(0, index)
            found.append(part.view(len(group.inputs), heads, group.width, -1))
        return found

    def scatter(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        """Move from the groups to the row. Shape of each part `(group, heads, tokens, width)`."""
        _, back = self._indices.get(heads) or self._find_indices(heads)
        width, joint = parts[0].shape[-1], []
        for part in parts:
            joint.append(part.reshape(-1, width))
        joint.append(parts[0].new_zeros(1, width))
        return torch.cat(joint).index_select(0, back)  # (size * heads, width)


class _Part(torch.autograd.Function):
    """From the row to a batch; backwards each place gets the gradient of its one copy."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, joined: JoinedInputs) -> Tensor:
        ctx.joined = joined
        places = joined.places
        return row[0].index_select(0, places.flatten()).view(*places.shape, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.joined.join(gradient), None


class _Take(torch.autograd.Function):
    """From rows to groups; backwards each place gets the gradient of its one copy."""

    @staticmethod
    def forward(ctx: Any, joined: JoinedInputs, *rows: Tensor) -> tuple[Tensor, ...]:
        ctx.joined, ctx.heads = joined, []
        found: list[Tensor] = []
        for row in rows:
            ctx.heads.append(row.shape[1])
            flat = row[0].transpose(0, 1).reshape(-1, row.shape[3])  # (size * heads, width)
            found += joined.gather(flat, row.shape[1])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = [None]
        count = len(gradients) // len(ctx.heads)
        for number, heads in enumerate(ctx.heads):
            if not ctx.needs_input_grad[number + 1]:
                found.append(None)
                continue
            flat = ctx.joined.scatter(gradients[number * count :][:count], heads)
            found.append(flat.view(-1, heads, flat.shape[1]).transpose(0, 1)[None])
        return tuple(found)


class _Put(torch.autograd.Function):
    """From groups to the row; backwards padding gets the gradient of the row's end, which is 0."""

    @staticmethod
    def forward(ctx: Any, joined: JoinedInputs, *outputs: Tensor) -> Tensor:
        ctx.joined, ctx.heads = joined, outputs[0].shape[2]
        parts = []
        for output in outputs:
            parts.append(output.transpose(1, 2))
        flat = joined.scatter(parts, ctx.heads)
        return flat.view(1, -1, ctx.heads, flat.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        found: list[Any] = [None]
        for part in ctx.joined.gather(gradient.reshape(-1, gradient.shape[3]), ctx.heads):
            found.append(part.transpose(1, 2))
        return tuple(found)


def biased_attentions(body: nn.Module) -> list[Any]:
    """Return a half's attentions that make a bias of relative positions, as T5's do."""
    return [
        module
        for module in body.modules()
        if getattr(module, "has_relative_attention_bias", False) and hasattr(module, "compute_bias")
    ]


@contextmanager
def square_biases(attentions: Sequence[Any], width: int) -> Iterator[None]:
    """Let attention make its bias of relative positions for one input of a width, while this lasts.

    It depends on how far positions are apart alone, so that of a shorter input is its corner.

    Args:
        attentions: those of the half that make one.
        width: positions of the input.
    """
    for module in attentions:
        module.compute_bias = partial(_square_bias, module.compute_bias, width)
    try:
        yield
    finally:
        for module in attentions:
            del module.compute_bias


def _square_bias(compute: Callable[..., Tensor], width: int, *_: int, **options: Any) -> Tensor:
    return compute(width, width, **options)
