"""What a pass knows of values that modules of its model are given: more than their numbers.

Transformers calls modules with values alone. So a model's modules that compute faster, and the
passes through it, hold one object of hints, which says of tensors what they are. A hint is believed
of that very tensor only, as long as it has not been changed. Meanwhile the model is locked.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from softprompts.fast.joined_inputs import JoinedInputs
from softprompts.fast.spans import Wanted


@final
@dataclass(frozen=True)
class Bent:
    """What GELU was taken of.

    Attributes:
        values: what it was taken of, bfloat16 on the processor, contiguous.
        is_tanh: whether by a hyperbolic tangent.
    """

    values: Tensor
    is_tanh: bool


@final
class Hints:
    """What is known of values that modules of one model are given.

    Attributes:
        wanted: places that a gradient is asked for, in front of a layer's attention; all when
            `None`. All that a model does there it does to each position by itself, so tokens, which
            have no gradient, need none. From the attention on positions meet, and all are wanted.
    """

    def __init__(self) -> None:
        self.wanted: Wanted | None = None
        self._bent: tuple[Any, int, int, Bent] | None = None
        self._row: tuple[Any, int, Tensor, JoinedInputs] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Hints:
        memo[id(self)] = copied = Hints()
        return copied

    def note_bent(self, output: Tensor, bent: Bent) -> None:
        """Take note that a tensor is GELU of values."""
        given = (weakref.ref(output), output._version, bent.values._version, bent)
        self._bent = given

    def bent_of(self, output: Tensor) -> Bent | None:
        """Return what a tensor is GELU of, once, where that is known and neither was changed."""
        if self._bent is None or self._bent[0]() is not output:
            return None
        (_, version, values_version, bent), self._bent = self._bent, None
        is_same = (version, values_version) == (output._version, bent.values._version)
        return bent if is_same else None

    @contextmanager
    def remembering(self, batch: Tensor, row: Tensor, joined: JoinedInputs) -> Iterator[None]:
        """Know the row that a batch was made of, if much of the batch is padding.

        What is done to each position by itself may be done to the row instead, and be parted again.
        """
        if joined.is_padded:
            self._row = (weakref.ref(batch), _version(batch), row, joined)
        try:
            yield
        finally:
            self._row = None

    def row_of(self, batch: Tensor) -> tuple[Tensor, JoinedInputs] | None:
        """Return the row that a batch was made of, where that is known."""
        if self._row is None or self._row[0]() is not batch or self._row[1] != _version(batch):
            return None
        return self._row[2:]


def _version(values: Tensor) -> int:
    return 0 if values.is_inference() else values._version
