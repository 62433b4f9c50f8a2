"""What regularizers did in an update, for a run's record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

from softprompts.regularizers.base import Penalty, Regularizer


@final
class PenaltyLog:
    """Collects penalties over the micro-batches of an update.

    Args:
        regularizers: those of the run, in the recipe's order.
    """

    def __init__(self, regularizers: Sequence[Regularizer] = ()) -> None:
        self.regularizers = tuple(regularizers)
        self._factors: list[float] = []
        self._sums: list[dict[str, float]] = []
        self._counts: list[int] = []
        self._texts: list[str] = []

    @property
    def num_reads(self) -> int:
        """How often each input is read in the forward of the clean one."""
        active = (one for one in self.regularizers if not one.is_idle)
        return 1 + sum(one.num_shared_copies for one in active)

    def begin(self, step: int) -> list[tuple[int, Regularizer, float]]:
        """Forget the last update, and return what is not idle in the next one.

        Args:
            step: updates done so far.

        Returns:
            Number, regularizer and factor on its penalty.
        """
        self._sums = [{} for _ in self.regularizers]
        self._counts = [0] * len(self.regularizers)
        self._texts = [""] * len(self.regularizers)
        self._factors = [0.0 if one.is_idle else one.factor(step) for one in self.regularizers]
        given = enumerate(zip(self.regularizers, self._factors, strict=True))
        return [(number, one, factor) for number, (one, factor) in given if factor]

    def add(self, number: int, penalty: Penalty) -> None:
        """Take note of a micro-batch.

        Args:
            number: the regularizer's place in the list.
            penalty: what it said.
        """
        sums = self._sums[number]
        for name, values in {"penalty": penalty.values, **penalty.about}.items():
            sums[name] = sums.get(name, 0.0) + float(values.detach().double().sum())
        self._counts[number] += len(penalty.values)
        self._texts[number] = self._texts[number] or penalty.text

    def summary(self) -> dict[str, Any]:
        """Return what a record says of the update: means over its examples, by regularizer.

        One example goes with them where a perturbation changed words.
        """
        if not self.regularizers:
            return {}
        lines = [
            {"weight": factor, **{name: _finite(total / count) for name, total in sums.items()}}
            for factor, sums, count in zip(self._factors, self._sums, self._counts, strict=True)
        ]
        texts = [{"example": text} if text else {} for text in self._texts]
        return {"regularizers": [line | text for line, text in zip(lines, texts, strict=True)]}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
