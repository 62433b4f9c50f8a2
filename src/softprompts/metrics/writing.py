"""Metrics of written texts against references.

Exact match and the F1 of words are those of SQuAD; the others are those of `rouge-score` and
`sacrebleu`, in the forms that these libraries choose by themselves.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from softprompts.errors import DataError
from softprompts.examples import Example
from softprompts.metrics.record import text_equal, text_f1
from softprompts.metrics.registry import is_of_texts

References = Sequence[Sequence[str]]
"""At least one text for each that was written."""


@dataclass(frozen=True, slots=True)
class Written:
    """A text that was written.

    Attributes:
        text: the text.
        log_likelihood: of the first reference, NaN where it was not scored.
        num_tokens: of that reference, its end among them.
    """

    text: str
    log_likelihood: float = math.nan
    num_tokens: int = 0


def perplexity(written: Sequence[Written], references: References) -> float:
    """Return `exp(-sum log p / number of tokens)` of the first references; 1 is the least."""
    total = sum(one.log_likelihood for one in written)
    return math.exp(min(-total / sum(one.num_tokens for one in written), 700.0))


def shown_texts(texts: Sequence[str], examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return the best, the median and the worst texts by the F1 of words, two of each.

    Returns:
        `place`, `source`, `input`, `text`, `reference` (the nearest) and `token_f1` each.
    """
    found = []
    for text, row in zip(texts, examples, strict=True):
        score, nearest = max((text_f1(text, gold), gold) for gold in row.references)
        about = {"source": row.source, "input": "\n".join(row.fields.values()), "text": text}
        found.append((score, {**about, "reference": nearest, "token_f1": score}))
    count, ordered = 2, [about for _, about in sorted(found, key=lambda one: -one[0])]
    middle, last = max((len(ordered) - count) // 2, 0), max(len(ordered) - count, 0)
    starts = {"best": 0, "median": middle, "worst": last}
    places = {start + i: place for place, start in starts.items() for i in range(count)}
    return [{"place": places[i], **one} for i, one in enumerate(ordered) if i in places]


def check_metrics(names: Sequence[str]) -> None:
    """Check that metrics look at texts, and that their libraries are there."""
    for name in names:
        if not is_of_texts(name):
            raise DataError(f"metrics must be of written texts, but one is {name!r}.")
        if name.startswith("rouge"):
            _library("rouge_score.rouge_scorer")
        elif name in ("bleu", "chrf"):
            _library("sacrebleu")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"`metrics` must be among those that are installed, but {error.name} is missing: "
            "pip install 'softprompts[writing]'."
        ) from error


def _mean_best(
    compare: Callable[[str, str], float], written: Sequence[Written], references: References
) -> float:
    """Return the mean of what is compared, each text with the reference that it is nearest to."""
    pairs = zip(written, references, strict=True)
    return fmean(max(compare(one.text, gold) for gold in golds) for one, golds in pairs)


def _rouge(name: str, written: Sequence[Written], references: References) -> float:
    """Return a mean F1, each text with its best reference."""
    scorer = _library("rouge_score.rouge_scorer").RougeScorer([name])
    pairs = zip(written, references, strict=True)
    return fmean(scorer.score_multi(list(golds), one.text)[name].fmeasure for one, golds in pairs)


def _sacrebleu(name: str, written: Sequence[Written], references: References) -> float:
    """Return a score over all texts, as a share."""
    most = max(map(len, references))
    streams = [[golds[i] if i < len(golds) else None for golds in references] for i in range(most)]
    found = getattr(_library("sacrebleu"), name)([one.text for one in written], streams)
    return float(found.score) / 100


exact_match = partial(_mean_best, text_equal)
token_f1 = partial(_mean_best, text_f1)
rouge_1 = partial(_rouge, "rouge1")
rouge_2 = partial(_rouge, "rouge2")
rouge_l = partial(_rouge, "rougeL")
bleu = partial(_sacrebleu, "corpus_bleu")
chrf = partial(_sacrebleu, "corpus_chrf")
