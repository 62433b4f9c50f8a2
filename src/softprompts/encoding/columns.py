"""Encoded rows as columns of numbers, for a file, and back again exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softprompts.encoding.inputs import EncodedExample, EncodedInput, Target
from softprompts.encoding.template import Role

_PER_TOKEN = ("ids", "segments", "roles", "slots", "marks", "starts", "fields")
_SCALARS = ("start", "end", "column", "num_continuation_tokens")
_ROLES = {int(role): role for role in Role}


def to_columns(examples: Sequence[EncodedExample]) -> tuple[dict[str, Tensor], list[str]]:
    """Return encoded rows as tensors, each in the narrowest type that holds it.

    `examples` `(rows, 4)` has how many inputs, columns and answers a row has, and whether it was
    cut; `inputs` has the scalars of each input, how many targets it has and how long its tuples
    are; `targets` `(targets, 2)` has column and length. All else is flat.

    Args:
        examples: at least one.

    Returns:
        The tensors by name, and the names of fields that the numbers in `fields` stand for.

    Raises:
        ValueError: if the rows hold what would not come back equal.
    """
    items = [item for example in examples for item in example.inputs]
    targets = [target for item in items for target in item.targets]
    names = sorted({name for item in items for name in item.fields})
    places = {name: place for place, name in enumerate(names)}
    flat = {name: [n for item in items for n in getattr(item, name)] for name in _PER_TOKEN}
    flat["fields"] = [places[name] for name in flat["fields"]]
    flat["tokens"] = [token for target in targets for token in target.tokens]
    flat["answers"] = [answer for example in examples for answer in example.answers]
    lines = {
        "examples": [(len(e.inputs), e.num_columns, len(e.answers), e.is_cut) for e in examples],
        "inputs": [
            (
                *(getattr(item, name) for name in _SCALARS),
                len(item.targets),
                *(len(getattr(item, name)) for name in _PER_TOKEN),
            )
            for item in items
        ],
        "targets": [(target.column, len(target.tokens)) for target in targets],
    }
    try:
        tensors = {name: _narrow(np.array(values, np.int64)) for name, values in flat.items()}
        tensors |= {name: _narrow(np.array(rows, np.int64)) for name, rows in lines.items()}
        is_same = list(Columns(tensors, names)) == list(examples)
    except (TypeError, OverflowError, LookupError) as error:
        raise ValueError(f"encoded rows must be whole numbers and names: {error}") from error
    if not is_same:
        raise ValueError("encoded rows must be equal when they come back.")
    return tensors, names


@final
class Columns(Sequence[EncodedExample]):
    """Encoded rows from their columns; each row is built when it is asked for.

    Args:
        tensors: what `to_columns` returned.
        names: names of fields.

    Raises:
        LookupError: if a column is missing, or a number stands for nothing.
        ValueError: if columns do not fit together.
    """

    def __init__(self, tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
        flat = {name: tensors[name].tolist() for name in (*_PER_TOKEN, "tokens", "answers")}
        flat["roles"] = [_ROLES[number] for number in flat["roles"]]
        flat["fields"] = [names[number] for number in flat["fields"]]
        self._flat = {name: tuple(values) for name, values in flat.items()}
        self._examples: list[list[int]] = tensors["examples"].tolist()
        self._inputs: list[list[int]] = tensors["inputs"].tolist()
        self._targets: list[list[int]] = tensors["targets"].tolist()
        first = len(_SCALARS)
        self._first_inputs = _begins(line[0] for line in self._examples)
        self._first_targets = _begins(line[first] for line in self._inputs)
        self._begins = {
            name: _begins(line[first + 1 + place] for line in self._inputs)
            for place, name in enumerate(_PER_TOKEN)
        }
        self._begins["answers"] = _begins(line[2] for line in self._examples)
        self._begins["tokens"] = _begins(line[1] for line in self._targets)
        ends = {name: begins[-1] for name, begins in self._begins.items()}
        whole = (self._first_inputs[-1], self._first_targets[-1], *ends.values())
        counts = [len(self._inputs), len(self._targets), *(len(self._flat[name]) for name in ends)]
        if list(whole) != counts:
            raise ValueError(f"columns must have lengths {list(whole)}, but have {counts}")

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, row: int) -> EncodedExample:  # type: ignore[override]
        _, num_columns, _, is_cut = self._examples[row]
        inputs = range(self._first_inputs[row], self._first_inputs[row + 1])
        return EncodedExample(
            tuple(map(self._input, inputs)), num_columns, self._slice("answers", row), bool(is_cut)
        )

    def _input(self, place: int) -> EncodedInput:
        targets = range(self._first_targets[place], self._first_targets[place + 1])
        parts: dict[str, Any] = dict(zip(_SCALARS, self._inputs[place], strict=False))
        parts |= {name: self._slice(name, place) for name in _PER_TOKEN}
        return EncodedInput(
            **parts,
            targets=tuple(Target(self._targets[t][0], self._slice("tokens", t)) for t in targets),
        )

    def _slice(self, name: str, place: int) -> tuple[int, ...]:
        begins = self._begins[name]
        return self._flat[name][begins[place] : begins[place + 1]]


def _begins(lengths: Iterable[int]) -> list[int]:
    """Return where each stretch begins, and where the last ends."""
    return [0, *accumulate(lengths)]


def _narrow(values: NDArray[np.int64]) -> Tensor:
    """Return whole numbers in the narrowest of three types."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for dtype in (np.uint8, np.int16, np.int32):
        bounds = np.iinfo(dtype)
        if bounds.min <= low and high <= bounds.max:
            return torch.from_numpy(values.astype(dtype))
    raise OverflowError(f"{low} to {high} do not fit 32 bits")
