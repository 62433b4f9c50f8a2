"""Every variant against a baseline: means, spreads, and what may be concluded.

Two families of tests are corrected, each by itself: all variants on single tasks, and all variants
on the mean over tasks. Tests of means and of spreads are corrected apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from softprompts.lab.analysis.comparison import Comparison, mean_sentence, spread_sentence
from softprompts.lab.analysis.corrections import holm
from softprompts.lab.analysis.detectable import detectable_difference
from softprompts.lab.analysis.improvement import improvement_interval, probability_of_improvement
from softprompts.lab.analysis.intervals import (
    mean_interval,
    standard_error,
    stratified_mean,
)
from softprompts.lab.analysis.items import item_variance
from softprompts.lab.analysis.looks import Looks, corrected_p, least_p
from softprompts.lab.analysis.permutations import SignFlipTest, sign_flip_test
from softprompts.lab.analysis.samples import LEVEL, Floats, is_constant
from softprompts.lab.analysis.scores import ScoreTable, check_variant, describe_missing
from softprompts.lab.analysis.spreads import brown_forsythe, std_ratio, std_ratio_interval
from softprompts.recipes.study_size import RATE
from softprompts.seeding import derive


def compare(
    table: ScoreTable, baseline: str, generator: np.random.Generator, looks: Looks | None = None
) -> tuple[Comparison, ...]:
    """Compare every other variant with a baseline.

    Seeds are paired: a comparison on a task uses the seeds that both variants finished there. What
    one pair of variants says depends on no other but for the correction.

    Args:
        table: the scores.
        baseline: the variant to compare with.
        generator: seeds the draws of tests that do not go through all flips.
        looks: when the study was looked at while seeds were added, which tests of means allow for;
            once when `None`.

    Returns:
        Per variant, in the table's order: its comparison on each task that both have runs on,
        then, if there are several, on the mean over tasks.

    Raises:
        DataError: if the table has no such variant.
    """
    check_variant(table, baseline)
    key = int(generator.integers(2**62))
    singles, overall = [], []
    for variant in table.variants:
        if variant == baseline:
            continue
        shared = set(table.tasks_of(baseline))
        tasks = [task for task in table.tasks_of(variant) if task in shared]
        singles += [_compare(table, variant, baseline, [task], key, looks) for task in tasks]
        if len(tasks) > 1:
            overall.append(_compare(table, variant, baseline, tasks, key, looks))
    found = [*_corrected(singles), *_corrected(overall)]
    return tuple(sorted(found, key=lambda comparison: table.variants.index(comparison.variant)))


def _compare(
    table: ScoreTable,
    variant: str,
    baseline: str,
    tasks: Sequence[str],
    key: int,
    looks: Looks | None,
) -> Comparison:
    """Return everything but what the family decides."""
    pairs = _pairs(table, variant, baseline, tasks)
    left_out = [
        text
        for task in tasks
        for name in (variant, baseline)
        if (text := describe_missing(table, name, task))
    ]
    used = tuple(pairs) or tuple(tasks)
    blank = Comparison(
        variant=variant,
        baseline=baseline,
        tasks=used,
        num_seeds={task: len(first) for task, (first, _) in pairs.items()},
        num_pairs=sum(len(first) for first, _ in pairs.values()),
        left_out=tuple(left_out),
    )
    if not pairs:
        return blank
    first, second = ([pair[side] for pair in pairs.values()] for side in (0, 1))
    gaps = [x - y for x, y in zip(first, second, strict=True)]
    draws = np.random.default_rng(derive(key, "sign-flips", variant, baseline, *used))
    test = sign_flip_test(gaps, draws)
    if looks is not None:
        scores = [[table.scores(name, task) for name in (variant, baseline)] for task in pairs]
        test = _looked_at(test, scores, looks, derive(key, "looks", variant, *used))
    several = min(map(len, first)) > 1
    return replace(
        blank,
        difference=stratified_mean(gaps),
        interval=mean_interval(gaps),
        p=test.p,
        smallest_p=test.smallest_p,
        is_exact=test.is_exact,
        std_ratio=std_ratio(first, second),
        std_ratio_interval=std_ratio_interval(first, second),
        p_spread=brown_forsythe(first, second),
        improvement=probability_of_improvement(first, second),
        improvement_interval=improvement_interval(first, second) if several else None,
        **_limits(gaps, _variance_of_items(table, pairs)),
    )


def _looked_at(
    test: SignFlipTest, scores: Sequence[Sequence[Mapping[int, float]]], looks: Looks, key: int
) -> SignFlipTest:
    """Return a test that allows for looks; scores are both variants', per task."""
    gaps = [{s: x - theirs[s] for s, x in own.items() if s in theirs} for own, theirs in scores]
    p = corrected_p(gaps, looks, np.random.default_rng(key))
    return replace(test, p=p, smallest_p=least_p(gaps, looks))


def _pairs(
    table: ScoreTable, variant: str, baseline: str, tasks: Sequence[str]
) -> dict[str, tuple[Floats, Floats]]:
    """Return both variants' scores on the seeds that both finished, by task."""
    found: dict[str, tuple[Floats, Floats]] = {}
    for task in tasks:
        first, second = table.scores(variant, task), table.scores(baseline, task)
        seeds = [seed for seed in table.seeds if seed in first and seed in second]
        if seeds:
            one, other = ([scores[seed] for seed in seeds] for scores in (first, second))
            found[task] = np.array(one), np.array(other)
    return found


def _variance_of_items(
    table: ScoreTable, pairs: Mapping[str, tuple[Floats, Floats]]
) -> float | None:
    """Return the variance that other items would add to the mean difference, if it is known."""
    total = 0.0
    for task, both in pairs.items():
        means = [float(scores.mean()) for scores in both]
        num_items = table.num_items.get(task)
        if num_items is None or not all(0 <= mean <= 1 for mean in means):
            return None
        total += sum(item_variance(mean, num_items) for mean in means)
    return total / len(pairs) ** 2


def _limits(gaps: Sequence[Floats], items: float | None) -> dict[str, Any]:
    """Return how wide the uncertainty is with items, and what could have been shown."""
    limits: dict[str, Any] = {}
    if min(map(len, gaps)) < 2:
        return limits
    error, df = (0.0, np.inf) if all(map(is_constant, gaps)) else standard_error(gaps)
    if error:
        limits["detectable"] = detectable_difference(error, df)
    if items is not None and (error or items):
        total = float(np.sqrt(error**2 + items))
        wider = df * total**4 / error**4 if error else np.inf
        half = total * float(stats.t.ppf((1 + LEVEL) / 2, wider))
        mean = stratified_mean(gaps)
        limits["interval_with_items"] = (mean - half, mean + half)
        limits["detectable_with_items"] = detectable_difference(total, wider)
    return limits


def _corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """Return a family with adjusted p-values and sentences."""
    probabilities = [c.p for c in family]
    adjusted, spreads = holm(probabilities), holm([c.p_spread for c in family])
    num_tests = sum(p is not None for p in probabilities)
    found = []
    for place, comparison in enumerate(family):
        best = [*probabilities]
        best[place] = None if comparison.p is None else comparison.smallest_p
        reachable = holm(best)[place]
        whole = replace(
            comparison,
            p_adjusted=adjusted[place],
            p_spread_adjusted=spreads[place],
            num_tests=max(num_tests, 1),
            is_conclusive=reachable is not None and reachable <= RATE,
        )
        found.append(
            replace(
                whole, conclusion=mean_sentence(whole), conclusion_on_spread=spread_sentence(whole)
            )
        )
    return found
