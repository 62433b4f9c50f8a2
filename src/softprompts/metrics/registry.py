"""Metrics that a task may name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from softprompts.registry import Registry

Metric = Callable[..., float]
"""Of columns, examples and format; of written texts and the references of each."""

_SUMMARIES = {
    "accuracy": "share of rows whose column is right",
    "macro-f1": "F1 of each label, averaged over all labels of the task",
    "multirc-f1a": "F1 of the right answers over all proposed answers",
    "multirc-em": "share of questions with every proposed answer judged rightly",
    "record-f1": "F1 of the words of the chosen text, best over the gold answers",
    "record-em": "share of rows whose chosen text equals a gold answer after normalization",
    "exact-match": "share of texts that equal a reference after normalization",
    "token-f1": "F1 of the words of a text, best over its references",
    "rouge-1": "F1 of single words, best over the references (rouge-score)",
    "rouge-2": "F1 of pairs of words, best over the references (rouge-score)",
    "rouge-l": "F1 of the longest common subsequence of words (rouge-score)",
    "bleu": "n-grams of all texts that references have (sacrebleu)",
    "chrf": "F2 of the letters' n-grams of all texts (sacrebleu)",
    "perplexity": "of the first references, token by token; told beside the score",
}
"""A metric is computed by the function of its name."""

_REFERENCES = {
    "multirc": "Khashabi et al. 2018",
    "record": "Zhang et al. 2018, arXiv 1810.12885",
    "exact": "Rajpurkar et al. 2016, arXiv 1606.05250",
    "token": "Rajpurkar et al. 2016, arXiv 1606.05250",
    "rouge": "Lin 2004, ROUGE",
    "bleu": "Post 2018, arXiv 1804.08771",
    "chrf": "Popović 2015, chrF",
}
_MODULES = dict.fromkeys(("accuracy", "macro", "multirc"), "classification") | {"record": "record"}
"""By the first word of a metric's name; others are of written texts."""

METRICS: Registry[Metric] = Registry("metric")
for _name, _summary in _SUMMARIES.items():
    _word = _name.partition("-")[0]
    METRICS.register(
        _name,
        f"softprompts.metrics.{_MODULES.get(_word, 'writing')}:{_name.replace('-', '_')}",
        summary=_summary,
        reference=_REFERENCES.get(_word, ""),
        facts={"is_of_texts": _word not in _MODULES, "is_share": _name != "perplexity"},
    )


def is_of_texts(name: str) -> bool:
    """Return whether a metric looks at written texts rather than columns."""
    return METRICS.entry(name).facts.get("is_of_texts", False)


def scored(names: Iterable[str]) -> tuple[str, ...]:
    """Return the metrics whose mean is a score: all but those that are no share."""
    return tuple(name for name in names if METRICS.entry(name).facts.get("is_share", True))
