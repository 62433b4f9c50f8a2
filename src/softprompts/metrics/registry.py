"""Metrics that a task may name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from softprompts.registry import Registry

if TYPE_CHECKING:
    from softprompts.examples import Example, TaskFormat

    Metric = Callable[[Sequence[int], Sequence[Example], TaskFormat], float]

METRICS: Registry[Metric] = Registry("metric")
METRICS.register(
    "accuracy",
    "softprompts.metrics.classification:accuracy",
    summary="share of rows whose column is right",
)
METRICS.register(
    "macro-f1",
    "softprompts.metrics.classification:macro_f1",
    summary="F1 of each label, averaged over all labels of the task",
)
METRICS.register(
    "multirc-f1a",
    "softprompts.metrics.multirc:answer_f1",
    summary="F1 of the right answers over all proposed answers",
    reference="Khashabi et al. 2018",
)
METRICS.register(
    "multirc-em",
    "softprompts.metrics.multirc:question_exact_match",
    summary="share of questions with every proposed answer judged rightly",
    reference="Khashabi et al. 2018",
)
METRICS.register(
    "record-f1",
    "softprompts.metrics.record:token_f1",
    summary="F1 of the words of the chosen text, best over the gold answers",
    reference="Zhang et al. 2018, arXiv 1810.12885",
)
METRICS.register(
    "record-em",
    "softprompts.metrics.record:exact_match",
    summary="share of rows whose chosen text equals a gold answer after normalization",
    reference="Zhang et al. 2018, arXiv 1810.12885",
)
