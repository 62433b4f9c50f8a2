"""Measure the statistics by simulation, and write the table into their page.

    python docs/results/write_statistics.py simulate docs/results/statistics.json
    python docs/results/write_statistics.py page docs/results/statistics.json docs/statistics.md

The first takes minutes, the second none. Scores of two variants A and B share seeds: their normal
scores correlate by 0.3. A kind of score says how a normal score becomes one:

- normal: `0.6 + 0.03 z`;
- skewed: `0.7 − 0.05 e`, `e` exponential: most seeds are good, some are bad;
- discrete: `0.6 + 0.02 z`, rounded to 56ths: an accuracy on 56 items, with ties.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from softprompts.analysis.improvement import IMPROVEMENT_METHODS, improvement_interval
from softprompts.analysis.intervals import METHODS, mean_interval
from softprompts.analysis.permutations import sign_flip_test
from softprompts.analysis.spreads import RATIO_METHODS, brown_forsythe, std_ratio_interval

SEEDS = (5, 10)
NUM_STUDIES, NUM_RESAMPLES, NUM_TASKS, CORRELATION = 4000, 999, 3, 0.3
START, END = "<!-- simulation -->\n", "<!-- end of simulation -->\n"
Scores = np.ndarray

KINDS: dict[str, Callable[[Scores], Scores]] = {
    "normal": lambda z: 0.6 + 0.03 * z,
    "skewed": lambda z: 0.7 + 0.05 * stats.norm.logcdf(z),
    "discrete": lambda z: np.round(56 * (0.6 + 0.02 * z)) / 56,
}
UNEQUAL: dict[str, tuple[str, Callable[[Scores], Scores]]] = {
    "normal, spreads 1 : 2": ("normal", lambda z: 0.6 + 0.015 * z),
    "skewed, spreads 1 : 2": ("skewed", lambda z: 0.675 + 0.025 * stats.norm.logcdf(z)),
}


def quantiles(kind: Callable[[Scores], Scores]) -> Scores:
    """Return scores that stand for the whole distribution."""
    return kind(stats.norm.ppf((np.arange(20000) + 0.5) / 20000))


def share_above(x: Scores, y: Scores) -> float:
    """Return how often a score of `x` beats one of `y`, ties half."""
    y = np.sort(y)
    ends = np.searchsorted(y, x, "left"), np.searchsorted(y, x, "right")
    return float((ends[0] + ends[1]).mean() / 2 / len(y))


def draw(generator: np.random.Generator, *shape: int) -> tuple[Scores, Scores]:
    """Draw normal scores of A and B that correlate."""
    shared, *own = (generator.standard_normal(shape) for _ in range(3))
    a, b = (CORRELATION**0.5 * shared + (1 - CORRELATION) ** 0.5 * z for z in own)
    return a, b


def intervals(kind: str, n: int, generator: np.random.Generator) -> Iterator[tuple[str, bool, float]]:
    """Make every interval of one study: its name, whether it covers, its width."""
    made = {"generator": generator, "num_resamples": NUM_RESAMPLES}
    score, whole = KINDS[kind], WHOLE[kind]
    a, b = (score(z) for z in draw(generator, NUM_TASKS, n))
    shifted = b - whole.std()
    truths: dict[str, tuple[float, Callable]] = {}
    for method in METHODS:
        truths[f"mean, {method}"] = whole.mean(), lambda m=method: mean_interval(a[:1], m, **made)
        truths[f"mean, {NUM_TASKS} tasks, {method}"] = (
            whole.mean(),
            lambda m=method: mean_interval(a, m, **made),
        )
    truths["difference, t"] = 0.0, lambda: mean_interval(a[:1] - b[:1])
    for method in RATIO_METHODS:
        truths[f"ratio, {method}"] = 1.0, lambda m=method: std_ratio_interval(a[:1], b[:1], m, **made)
        truths[f"ratio, {NUM_TASKS} tasks, {method}"] = (
            1.0,
            lambda m=method: std_ratio_interval(a, b, m, **made),
        )
    for method in IMPROVEMENT_METHODS:
        truths[f"improvement, {method}"] = (
            0.5,
            lambda m=method: improvement_interval(a[:1], b[:1], m, **made),
        )
        truths[f"improvement, one std better, {method}"] = (
            BETTER[kind],
            lambda m=method: improvement_interval(a[:1], shifted[:1], m, **made),
        )
    for name, (truth, make) in truths.items():
        found = make()
        if found is None:
            yield name, False, float("nan")
        else:
            yield name, found[0] - 1e-9 <= truth <= found[1] + 1e-9, found[1] - found[0]


def tests(kind: str, n: int, generator: np.random.Generator) -> Iterator[tuple[str, bool]]:
    """Make every test of one study in which A and B are alike: its name, whether it says not."""
    first, second = UNEQUAL.get(kind, (kind, None))
    a, b = draw(generator, NUM_TASKS, n)
    x, y = KINDS[first](a), (second or KINDS[first])(b)
    for name, gaps in (("", x[:1] - y[:1]), (f", {NUM_TASKS} tasks", x - y)):
        p = sign_flip_test(gaps, generator, num_resamples=NUM_RESAMPLES).p
        yield f"sign flips{name}", p <= 0.05
        low, high = mean_interval(gaps)
        yield f"t{name}", not low - 1e-9 <= 0 <= high + 1e-9
    if kind in KINDS:
        for name, num in (("", 1), (f", {NUM_TASKS} tasks", NUM_TASKS)):
            p_spread = brown_forsythe(x[:num], y[:num])
            yield f"Brown–Forsythe{name}", p_spread is not None and p_spread <= 0.05


WHOLE = {kind: quantiles(score) for kind, score in KINDS.items()}
BETTER = {kind: share_above(whole, whole - whole.std()) for kind, whole in WHOLE.items()}


def simulate(num_studies: int) -> dict:
    """Return coverage and median width of intervals, and false positives of tests."""
    covered: dict = defaultdict(dict)
    widths: dict = defaultdict(dict)
    undefined: dict = defaultdict(dict)
    rejected: dict = defaultdict(dict)
    for n in SEEDS:
        for number, kind in enumerate([*KINDS, *UNEQUAL]):
            generator = np.random.default_rng([n, number])
            hits, finds, spans = Counter(), Counter(), defaultdict(list)
            for _ in range(num_studies):
                for name, is_found in tests(kind, n, generator):
                    finds[name] += is_found
                if kind in KINDS:
                    for name, is_hit, width in intervals(kind, n, generator):
                        hits[name] += is_hit
                        spans[name].append(width)
            for name, count in finds.items():
                rejected[name][f"{kind}, {n}"] = count / num_studies
            for name, found in spans.items():
                made = np.isfinite(found)
                place = f"{kind}, {n}"
                undefined[name][place] = float(1 - made.mean())
                covered[name][place] = hits[name] / made.sum()
                widths[name][place] = float(np.median(np.array(found)[made]))
    return {
        "num_studies": num_studies,
        "num_resamples": NUM_RESAMPLES,
        "covered": covered,
        "widths": widths,
        "undefined": undefined,
        "rejected": rejected,
    }


def main(arguments: list[str]) -> None:
    """Simulate, or write the page."""
    verb, data, *rest = arguments
    start = time.process_time()
    if verb == "simulate":
        found = simulate(int(rest[0]) if rest else NUM_STUDIES)
        Path(data).write_text(json.dumps(found, indent=1) + "\n")
        print(f"{time.process_time() - start:.0f} seconds", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
