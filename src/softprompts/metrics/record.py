"""ReCoRD's metrics: the chosen text against the gold answers, as strings.

Differences: where both texts are empty after normalization they count as equal, for F1 too.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from softprompts.errors import DataError
from softprompts.examples import Example, TaskFormat

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and spare whitespace.

    Example:
        >>> normalize_answer("The  U.S. Senate")
        'us senate'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def text_f1(text: str, reference: str) -> float:
    """Return the F1 of the words that two texts share, counted with repetition."""
    words, gold = normalize_answer(text).split(), normalize_answer(reference).split()
    if words == gold:
        return 1.0
    num_shared = sum((Counter(words) & Counter(gold)).values())
    return 2 * num_shared / (len(words) + len(gold))


def text_equal(text: str, reference: str) -> float:
    """Return 1 where two texts are equal after normalization, else 0."""
    return float(normalize_answer(text) == normalize_answer(reference))


def _mean_best(
    compare: Callable[[str, str], float],
    metric: str,
    predictions: Sequence[int],
    examples: Sequence[Example],
    form: TaskFormat,
) -> float:
    """Return the mean over rows of the best comparison of the chosen text with a gold answer."""
    total = 0.0
    for column, row in zip(predictions, examples, strict=True):
        if not row.choices or not row.references:
            raise DataError(
                f"{row.source}: metric {metric!r} must have rows with choices and references, but "
                f"has {len(row.choices)} and {len(row.references)}."
            )
        total += max(compare(row.choices[column], reference) for reference in row.references)
    return total / len(examples)


record_f1 = partial(_mean_best, text_f1, "record-f1")
record_em = partial(_mean_best, text_equal, "record-em")
