"""Depths: where in the backbone the rows of a prompt are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Generator, Tensor

from softprompts.backbones.memory import KeyValues, Slot
from softprompts.backbones.units import Units
from softprompts.prompts.rows.base import Rows, RowsInUnit

Build = Callable[..., Rows]
"""A rows kind with its options: initial rows and a generator make rows."""


def build_in_unit(
    kind: type[Rows],
    build: Build,
    initial: Tensor,
    generator: Generator,
    unit: Tensor | None,
    start: Tensor | float | None = None,
) -> Rows:
    """Build rows that start from initial ones, in a unit where there is one.

    `start` is the unit of what they start from, where that is another than theirs. Without a `unit`
    rows are absolute.
    """
    if unit is None:
        return build(initial, generator)
    if kind.has_unit:
        return build(initial, generator, unit=unit)
    return RowsInUnit(build(initial / (unit if start is None else start), generator), unit)


class Depth(ABC):
    """Where rows are read, and so what one row is.

    Args:
        slots: the attentions that a prompt reaches.
        read: from embeddings, shape `(length, embedding)`, to the backbone's keys and values.

    Attributes:
        is_input: whether rows stand in the input, as embeddings.
    """

    is_input: bool = True

    @abstractmethod
    def __init__(
        self,
        slots: Sequence[Slot],
        read: Callable[[Tensor], Mapping[Slot, KeyValues]],
        **options: Any,
    ) -> None: ...

    @abstractmethod
    def build_rows(
        self,
        kind: type[Rows],
        build: Build,
        initial: Tensor,
        draw: Callable[[int], Generator],
        units: Units | None = None,
    ) -> Rows:
        """Build a set of rows.

        Args:
            kind: how rows are parameterized.
            build: builds them from initial rows and a generator.
            initial: embeddings that the rows start from. Shape `(length, embedding)`.
            draw: from a number to the generator of that part's other first values.
            units: what the backbone's numbers measure; `None` leaves rows absolute.
        """

    @abstractmethod
    def prefixes(self, rows: Tensor) -> Mapping[Slot, KeyValues]:
        """Return the keys and values that rows are; none where they stand in the input.

        Shape of `rows` `(batch, length, width)`.
        """
