"""What regularizers did in an update, for a run's record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from softprompts.regularizers.base import Illustration, Penalty, Regularizer

_LONGEST_TEXT = 2000


@final
class PenaltyLog:
    """Collects penalties over the micro-batches of an update.

    Args:
        regularizers: those of the run, in the recipe's order.
    """

    def __init__(self, regularizers: Sequence[Regularizer] = ()) -> None:
        self.regularizers = tuple(regularizers)
        self._factors: list[float] = []
        self._sums: list[dict[str, Tensor]] = []
        self._counts: list[int] = []
        self._num_shown = 0
        self._texts: dict[tuple[int, str], list[str]] = {}

    @property
    def num_reads(self) -> int:
        """How often each input is read in the forward of the clean one."""
        num_reads = 1
        for one in self.regularizers:
            num_reads += 0 if one.is_idle else one.num_shared_copies
        return num_reads

    def begin(self, step: int, num_shown: int = 0) -> list[tuple[int, Regularizer, float]]:
        """Forget the last update, and return what is not idle in the next one.

        Args:
            step: updates done so far.
            num_shown: most examples of each regularizer and task to be shown.

        Returns:
            Number, regularizer and factor on its penalty.
        """
        self._sums = [{} for _ in self.regularizers]
        self._counts = [0] * len(self.regularizers)
        self._num_shown, self._texts = num_shown, {}
        self._factors = [0.0 if one.is_idle else one.factor(step) for one in self.regularizers]
        given = enumerate(zip(self.regularizers, self._factors, strict=True))
        return [(number, one, factor) for number, (one, factor) in given if factor]

    def add(self, task: str, labels: Sequence[str], number: int, penalty: Penalty) -> None:
        """Take note of a micro-batch.

        Args:
            task: the task's name; "" where there is only one.
            labels: names of the columns; none where rows bring their own choices.
            number: the regularizer's place in the list.
            penalty: what it said.
        """
        sums = self._sums[number]
        for name, values in {"penalty": penalty.values, **penalty.about}.items():
            total = values.detach().double().sum().to(penalty.values.device)
            sums[name] = sums[name] + total if name in sums else total
        self._counts[number] += len(penalty.values)
        texts = self._texts.setdefault((number, task), [])
        if len(texts) < self._num_shown:
            found = penalty.illustrate(self._num_shown - len(texts))
            place = f"regularizers.{number}" + (f", task {task}" if task else "")
            texts += [f"{place}: {_written(labels, one)}" for one in found]

    def summary(self) -> dict[str, Any]:
        """Return what a record says of the update: means over its examples, by regularizer."""
        if not self.regularizers:
            return {}
        lines = []
        for factor, sums, count in zip(self._factors, self._sums, self._counts, strict=True):
            totals = torch.stack(list(sums.values())).tolist() if sums else []
            means = zip(sums, totals, strict=True)
            lines.append({"weight": factor, **{n: _finite(total / count) for n, total in means}})
        return {"regularizers": lines}

    def examples(self, step: int) -> str:
        """Return examples of the update whose words were replaced, for reading.

        Args:
            step: number of the update, the first being 1.
        """
        texts = (text for key in sorted(self._texts) for text in self._texts[key])
        return "".join(f"step {step}, {text}" for text in texts)


def _written(labels: Sequence[str], shown: Illustration) -> str:
    """Write an example down."""

    def name(column: int) -> str:
        return labels[column] if labels else f"choice {column + 1}"

    label = " or ".join(map(name, shown.answers)) or "unknown"
    losses = " -> ".join(f"{loss:.4f}" for loss in shown.losses)
    predictions = " -> ".join(map(name, shown.predictions))
    before, after = (
        text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"
        for text in (shown.before, shown.after)
    )
    return (
        f"label {label}, loss {losses}, prediction {predictions}\n"
        f"  before: {before}\n  after:  {after}\n\n"
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
