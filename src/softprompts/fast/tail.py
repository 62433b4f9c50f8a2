"""The last layer, run only where its output is read.

Keys and values are needed of all positions, but queries, and all that follows attention, only of
those that a readout looks at. The layer is begun on all positions and left when its attention has
keys and values; then it is run on the chosen positions, whose queries meet these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from softprompts.fast.joined_inputs import Group, JoinedInputs
from softprompts.fast.spans import Spans


class InterruptedLayerError(Exception):
    """Leaves a layer whose keys and values are known."""


@final
class Tail:
    """Where the last layer's output is read.

    Args:
        gather: positions, long. Shape `(batch, slots)`.
        joined: where the inputs stand, if they stand in one row.
    """

    def __init__(self, gather: Tensor, joined: JoinedInputs | None) -> None:
        self._gather, self._joined = gather, joined
        self._places = gather if joined is None else joined.at(gather)
        self._kept: tuple[Tensor, Tensor, Tensor | None] | None = None
        self._shape = torch.Size()

    def keep(
        self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Take note of keys and values at the first call; return them at the second.

        Args:
            module: the attention.
            key: keys. Shape `(batch, heads, keys, size)`.
            value: values. Shape `(batch, heads, keys, size)`.
            mask: what may be attended to, or `None`.

        Returns:
            Keys, values and the mask, which has rows for the chosen positions alone where the
            inputs stand in a batch.

        Raises:
            InterruptedLayerError: at the first call.
        """
        if self._kept is None:
            if self._joined is None:
                mask = self._rows(module, key, mask)
            self._kept = (key, value, mask)
            raise InterruptedLayerError
        return self._kept

    def take(self, query: Tensor) -> list[Tensor]:
        """Return the queries of each group of a joined.

        Args:
            query: one for each position that is read. Shape `(1, heads, batch * slots, size)`.

        Returns:
            Shape `(group, heads, slots, size)` each.
        """
        assert self._joined is not None
        heads, _, size = query[0].shape
        each = query[0].reshape(heads, *self._gather.shape, size).transpose(0, 1)
        return [each.index_select(0, group.inputs) for group in self._joined.groups]

    def mask(self, group: Group, mask: Tensor | None) -> Tensor | None:
        """Return the rows of a group's mask for its positions that are read."""
        return _rows_of(mask, self._gather.index_select(0, group.inputs))

    def spans(self, spans: Spans) -> Spans:
        """Return where inputs stand, their queries being those that are read."""
        batch, slots = self._gather.shape
        each = torch.arange(batch)
        counts = torch.full_like(each, slots)
        keys = (spans.key_starts, spans.key_counts)
        return Spans(each * slots, counts, *keys, batch * slots, spans.num_keys)

    def bias(self, mask: Tensor | None) -> Tensor | None:
        """Return the rows of a mask that all inputs share for the positions that are read."""
        return _rows_of(mask, self._gather)

    def put(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return what attention gives for the positions that are read.

        Args:
            outputs: one a group. Shape `(group, slots, heads, size)` each.

        Returns:
            Shape `(1, batch * slots, heads, size)`.
        """
        assert self._joined is not None
        order = torch.cat([group.inputs for group in self._joined.groups])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return torch.cat(list(outputs)).index_select(0, back).flatten(0, 1)[None]

    def narrow(self, value: Any) -> Any:
        """Return an argument of the layer for the positions that are read.

        Args:
            value: whatever the layer is given; tensors of one entry a position are narrowed, in
                tuples too.
        """
        if isinstance(value, tuple):
            return tuple(self.narrow(one) for one in value)
        if not isinstance(value, Tensor) or value.dim() < 2:
            return value
        if value.shape[1] != self._shape[1] or value.shape[0] not in (1, self._shape[0]):
            return value
        rows = torch.arange(self._shape[0], device=value.device)[:, None]
        return value.expand(self._shape[0], *value.shape[1:])[rows, self._places]

    def begin(self, hidden: Tensor) -> None:
        """Begin the layer, maybe once more. Shape of what goes in `(batch, tokens, hidden)`."""
        self._shape, self._kept = hidden.shape, None

    def widen(self, output: Any) -> Any:
        """Return the layer's output for all positions, 0 where it is not read."""
        if isinstance(output, tuple):
            return (self.widen(output[0]), *output[1:])
        places, tokens = self._places, self._shape[1]
        same = places[:, :, None] == places[:, None, :]  # (batch, slots, slots)
        is_repeated = same.tril(-1).any(dim=2)
        index = torch.where(is_repeated, tokens, places)[..., None].expand_as(output)
        everywhere = output.new_zeros(output.shape[0], tokens + 1, output.shape[2])
        return everywhere.scatter(1, index, output)[:, :tokens]

    def _rows(self, module: nn.Module, key: Tensor, mask: Tensor | None) -> Tensor | None:
        if mask is None and getattr(module, "is_causal", False):
            keys = torch.arange(key.shape[2], device=key.device)
            return (keys <= self._gather[..., None])[:, None]  # (batch, 1, slots, keys)
        return _rows_of(mask, self._gather)


def _rows_of(mask: Tensor | None, gather: Tensor) -> Tensor | None:
    """Return rows of a mask. Shape `(batch, 1, slots, keys)`, or with one row for all."""
    if mask is None or mask.shape[2] == 1:
        return mask
    index = gather[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
    return mask.expand(len(gather), -1, -1, -1).gather(2, index)
