"""Where inputs stand that lie one behind the other in a row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from softprompts.errors import BackboneError


@final
@dataclass(frozen=True, eq=False)
class Spans:
    """Where inputs stand in a row of queries and in one of keys.

    Attributes:
        query_starts: first query of each input, long. Shape `(inputs,)`.
        query_counts: how many it has. Shape `(inputs,)`.
        key_starts: likewise for its keys. Shape `(inputs,)`.
        key_counts: how many keys it has. Shape `(inputs,)`.
        num_queries: queries of all inputs; places behind them belong to none.
        num_keys: likewise for keys.
    """

    query_starts: Tensor
    query_counts: Tensor
    key_starts: Tensor
    key_counts: Tensor
    num_queries: int
    num_keys: int

    @cached_property
    def most(self) -> tuple[int, int]:
        """Most queries and most keys of one input.

        Raises:
            BackboneError: if an input reaches beyond the row, which the compiled code would follow.
        """
        rows = {
            "queries": (self.query_starts, self.query_counts, self.num_queries),
            "keys": (self.key_starts, self.key_counts, self.num_keys),
        }
        found = []
        for name, (starts, counts, total) in rows.items():
            low = min(int(one.min()) for one in (starts, counts))
            end = int((starts + counts).max())
            if low < 0 or end > total:
                raise BackboneError(
                    f"{name} of inputs must stand in [0, {total}], but reach from {low} to {end}."
                )
            found.append(int(counts.max()))
        return found[0], found[1]

    @classmethod
    def of_batch(cls, batch: int, queries: int, keys: int) -> Spans:
        """Return those of inputs that all have as many queries, and as many keys."""
        each = torch.arange(batch)
        ones = torch.ones_like(each)
        return cls(
            each * queries, ones * queries, each * keys, ones * keys, batch * queries, batch * keys
        )


@final
@dataclass(frozen=True, eq=False)
class Wanted:
    """Places of a row that a gradient is asked for; that of all others may be anything.

    Attributes:
        places: where in the row they are, long. Shape `(positions,)`.
        size: length of the row.
        starts: place in its input of the first of each input's, long. Shape `(inputs,)`.
        counts: from there on to the last, 0 where an input has none. Shape `(inputs,)`.
    """

    places: Tensor
    size: int
    starts: Tensor
    counts: Tensor
