"""Scores for tests of statistics."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

TASKS = [
    [0.61, 0.55, 0.7, 0.64, 0.58],
    [0.81, 0.86, 0.8, 0.84],
    [0.42, 0.5, 0.47, 0.4, 0.43, 0.44],
]
OTHERS = [
    [0.57, 0.56, 0.6, 0.61, 0.59],
    [0.8, 0.79, 0.82, 0.85],
    [0.39, 0.52, 0.41, 0.43, 0.37, 0.4],
]
BAD = [
    ([[0.5, float("nan")]], "must be finite numbers, but have nan"),
    ([[float("inf"), 0.5]], "must be finite numbers, but have inf"),
    ([[[0.5, 0.6]]], r"must be one number per seed, but have shape \(1, 2\)"),
    ([], "must be those of at least one task, but are of 0"),
    ([[0.5, 0.6], []], "must be at least 1, but are 0"),
]


def differences(first, second):
    """Return `first - second` seed by seed, per task."""
    return [np.subtract(x, y) for x, y in zip(first, second, strict=True)]


# Accuracies on 56 items: ties and equal scores are common.
SCORE = st.integers(0, 56).map(lambda right: right / 56)


@st.composite
def paired_tasks(draw, least=1, most=6):
    """Two variants' scores on one to three tasks."""
    sizes = draw(st.lists(st.integers(least, most), min_size=1, max_size=3))
    return tuple([draw(st.lists(SCORE, min_size=n, max_size=n)) for n in sizes] for _ in range(2))


def is_quantile(value, values, share, margin=0.01):
    """Return whether `value` is a quantile of a distribution in lumps."""
    values = np.asarray(values)
    below, up_to = np.mean(values < value - 1e-9), np.mean(values <= value + 1e-9)
    return below - margin <= share <= up_to + margin


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
