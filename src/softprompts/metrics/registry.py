"""Metrics that a task may name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from softprompts.registry import Registry

Metric = Callable[..., float]
"""Of columns, examples and format; of written texts and the references of each."""

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
    "softprompts.metrics.classification:answer_f1",
    summary="F1 of the right answers over all proposed answers",
    reference="Khashabi et al. 2018",
)
METRICS.register(
    "multirc-em",
    "softprompts.metrics.classification:question_exact_match",
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

_TEXTS = {"is_of_texts": True}
_REFERENCES = {
    "exact": "Rajpurkar et al. 2016, arXiv 1606.05250",
    "token": "Rajpurkar et al. 2016, arXiv 1606.05250",
    "rouge": "Lin 2004, ROUGE",
    "bleu": "Post 2018, arXiv 1804.08771",
    "chrf": "Popović 2015, chrF",
}
_SUMMARIES = {
    "exact-match": "share of texts that equal a reference after normalization",
    "token-f1": "F1 of the words of a text, best over its references",
    "rouge-1": "F1 of single words, best over the references (rouge-score)",
    "rouge-2": "F1 of pairs of words, best over the references (rouge-score)",
    "rouge-l": "F1 of the longest common subsequence of words (rouge-score)",
    "bleu": "n-grams of all texts that references have (sacrebleu)",
    "chrf": "F2 of the letters' n-grams of all texts (sacrebleu)",
}
for _name, _summary in _SUMMARIES.items():
    METRICS.register(
        _name,
        f"softprompts.metrics.writing:{_name.replace('-', '_')}",
        summary=_summary,
        reference=_REFERENCES[_name.partition("-")[0]],
        facts=_TEXTS,
    )
METRICS.register(
    "perplexity",
    "softprompts.metrics.writing:perplexity",
    summary="of the first references, token by token; told beside the score",
    facts={**_TEXTS, "is_share": False},
)


def is_of_texts(name: str) -> bool:
    """Return whether a metric looks at written texts rather than columns."""
    return METRICS.entry(name).facts.get("is_of_texts", False)


def scored(names: Iterable[str]) -> tuple[str, ...]:
    """Return the metrics whose mean is a score: all but those that are no share."""
    return tuple(name for name in names if METRICS.entry(name).facts.get("is_share", True))
