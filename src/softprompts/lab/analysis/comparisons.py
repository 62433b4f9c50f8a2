"""Every variant against a baseline: means, spreads, and in words what may be concluded.

Two families of tests are corrected, each by itself: all variants on single tasks, and all variants
on the mean over tasks. Tests of means and of spreads are corrected apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from softprompts.errors import DataError
from softprompts.lab.analysis.improvement import improvement_interval, probability_of_improvement
from softprompts.lab.analysis.limits import crossed_variances, detectable_difference, item_variance
from softprompts.lab.analysis.permutations import Looks, corrected_p, least_p, sign_flip_test
from softprompts.lab.analysis.scores import ScoreTable, check_variant, describe_missing
from softprompts.lab.analysis.spreads import brown_forsythe, std_ratio, std_ratio_interval
from softprompts.lab.analysis.statistics import (
    LEVEL,
    Floats,
    Interval,
    is_constant,
    mean_interval,
    standard_error,
    stratified_mean,
)
from softprompts.recipes.study_size import RATE, needed_seeds
from softprompts.seeding import derive

_FARTHEST = 100  # a ratio beyond this bounds nothing


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline, on one task or on the mean over several.

    `docs/statistics.md` says what each field is. Differences are variant minus baseline, in
    fractions; ratios are variant by baseline. What cannot be computed is `None`.
    """

    variant: str
    baseline: str
    tasks: tuple[str, ...]
    num_seeds: Mapping[str, int]
    num_pairs: int
    left_out: tuple[str, ...]
    difference: float | None = None
    interval: Interval | None = None
    interval_with_items: Interval | None = None
    p: float | None = None
    p_adjusted: float | None = None
    smallest_p: float = 1.0
    is_exact: bool = True
    is_conclusive: bool = False
    num_tests: int = 1
    std_ratio: float | None = None
    std_ratio_interval: Interval | None = None
    p_spread: float | None = None
    p_spread_adjusted: float | None = None
    improvement: float | None = None
    improvement_interval: Interval | None = None
    detectable: float | None = None
    detectable_with_items: float | None = None
    conclusion: str = ""
    conclusion_on_spread: str = ""


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
    shared = set(table.tasks_of(baseline))
    singles, overall = [], []
    for variant in table.variants:
        if variant == baseline:
            continue
        tasks = [task for task in table.tasks_of(variant) if task in shared]
        singles += [_compare(table, (variant, baseline), [task], key, looks) for task in tasks]
        if len(tasks) > 1:
            overall.append(_compare(table, (variant, baseline), tasks, key, looks))
    found = [*_corrected(singles), *_corrected(overall)]
    return tuple(sorted(found, key=lambda comparison: table.variants.index(comparison.variant)))


def _compare(
    table: ScoreTable, names: tuple[str, str], tasks: Sequence[str], key: int, looks: Looks | None
) -> Comparison:
    """Return everything but what the family decides."""
    missing = [describe_missing(table, name, task) for task in tasks for name in names]
    pairs = _pairs(table, names, tasks)
    used = tuple(pairs) or tuple(tasks)
    blank = Comparison(
        *names,
        tasks=used,
        num_seeds={task: len(seeds) for task, (seeds, *_) in pairs.items()},
        num_pairs=sum(len(seeds) for seeds, *_ in pairs.values()),
        left_out=tuple(filter(None, missing)),
    )
    if not pairs:
        return blank
    seeds, first, second = zip(*pairs.values(), strict=True)
    gaps = [x - y for x, y in zip(first, second, strict=True)]
    test = sign_flip_test(gaps, np.random.default_rng(derive(key, "sign-flips", *names, *used)))
    p, least = test.p, test.smallest_p
    if looks is not None:
        named = [dict(zip(*pair, strict=True)) for pair in zip(seeds, gaps, strict=True)]
        draws = np.random.default_rng(derive(key, "looks", names[0], *used))
        p, least = corrected_p(named, looks, draws), least_p(named, looks)
    several = min(map(len, first)) > 1
    return replace(
        blank,
        difference=stratified_mean(gaps),
        interval=mean_interval(gaps),
        p=p,
        smallest_p=least,
        is_exact=test.is_exact,
        std_ratio=std_ratio(first, second),
        std_ratio_interval=std_ratio_interval(first, second),
        p_spread=brown_forsythe(first, second),
        improvement=probability_of_improvement(first, second),
        improvement_interval=improvement_interval(first, second) if several else None,
        **(_limits(gaps, _variance_of_items(table, names, pairs)) if several else {}),
    )


_Pairs = Mapping[str, tuple[list[int], Floats, Floats]]


def _pairs(table: ScoreTable, names: tuple[str, str], tasks: Sequence[str]) -> _Pairs:
    """Return the seeds that both variants finished, and their scores on them, by task."""
    found = {}
    for task in tasks:
        both = [table.scores(name, task) for name in names]
        seeds = [seed for seed in table.seeds if all(seed in scores for scores in both)]
        if seeds:
            one, other = (np.array([scores[seed] for seed in seeds]) for scores in both)
            found[task] = (seeds, one, other)
    return found


@dataclass(frozen=True)
class _OfItems:
    """What other items add to the variance of a mean difference over tasks.

    `shared` is how much of it is in the variance over seeds already, `square_by_df` the sum over
    tasks of the square of its part by its degrees of freedom.
    """

    variance: float
    shared: float
    square_by_df: float


def _variance_of_items(table: ScoreTable, names: tuple[str, str], pairs: _Pairs) -> _OfItems | None:
    """Return what other items add to the variance of the mean difference, if it is known."""
    items, shared, square = 0.0, 0.0, 0.0
    for task, (seeds, *both) in pairs.items():
        answers = table.answer_gaps(names, task, seeds)
        if answers is not None and answers.shape[1] > 1:
            more, own = crossed_variances(answers)
            items, shared = items + more, shared + own
            square += more**2 / (answers.shape[1] - 1)
            continue
        means = [float(scores.mean()) for scores in both]
        num_items = table.num_items.get(task)
        if num_items is None or not all(0 <= mean <= 1 for mean in means):
            return None
        items += sum(item_variance(mean, num_items) for mean in means)
    scale = 1 / len(pairs) ** 2
    return _OfItems(items * scale, shared * scale, square * scale**2)


def _limits(gaps: Sequence[Floats], items: _OfItems | None) -> dict[str, Any]:
    """Return how wide the uncertainty is with items, and what could have been shown."""
    limits: dict[str, Any] = {}
    error, df = (0.0, np.inf) if all(map(is_constant, gaps)) else standard_error(gaps)
    if error:
        limits["detectable"] = detectable_difference(error, df)
    if items is not None and (error or items.variance):
        sums = error**2 + items.variance - items.shared
        total = float(np.sqrt(max(sums, error**2, items.variance)))
        by_df = (error**4 / df if error else 0.0) + items.square_by_df
        wider = total**4 / by_df if by_df else np.inf
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
        mean, spread = mean_sentence(whole), spread_sentence(whole)
        found.append(replace(whole, conclusion=mean, conclusion_on_spread=spread))
    return found


def holm(probabilities: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values, `None` where there was none.

    With `k` tests, the smallest `p` is multiplied by `k`, the next by `k − 1`, and so on; none may
    be below an earlier one or above 1. Who calls differences shown whose adjusted `p` is at most
    5 % calls one wrongly in at most 5 % of families, however the tests depend on each other.

    Raises:
        DataError: if a value is not in [0, 1].

    Reference:
        Holm 1979, A simple sequentially rejective multiple test procedure.

    Example:
        >>> holm([0.01, None, 0.04])
        [0.02, None, 0.04]
    """
    given = [(p, place) for place, p in enumerate(probabilities) if p is not None]
    wrong = [p for p, _ in given if not 0 <= p <= 1]
    if wrong:
        raise DataError(f"p must be in [0, 1], but is {wrong[0]}.")
    adjusted: list[float | None] = [None] * len(probabilities)
    largest = 0.0
    for rank, (p, place) in enumerate(sorted(given)):
        largest = max(largest, min(1.0, p * (len(given) - rank)))
        adjusted[place] = largest
    return adjusted


def mean_sentence(found: Comparison) -> str:
    """Say which variant scores higher, and whether that may be concluded."""
    start = f"{_place(found)}: {found.variant}"
    if found.difference is None:
        seen = f"{start} and {found.baseline} share no finished seed: nothing may be concluded."
        return " ".join([seen, *_survivors(found)])
    points = f"{100 * found.difference:+.1f} points".replace("-", "−")
    seen = f"{start} − {found.baseline} = {points}"
    if found.interval is None:
        single = ", ".join(task for task, count in found.num_seeds.items() if count == 1)
        said = [
            f"{seen}, but they share one finished seed only on {single}: nothing may be concluded."
        ]
    else:
        tested = _tested(found.p, found.p_adjusted)
        over_seeds = f"(95 % over seeds: {difference_range(found.interval)}; {tested})"
        said = [f"{seen} {over_seeds}.", *_verdict_on_mean(found)]
    return " ".join([*said, *_survivors(found)])


def _verdict_on_mean(found: Comparison) -> list[str]:
    if found.p_adjusted is not None and found.p_adjusted <= RATE:
        better = "higher" if (found.difference or 0) > 0 else "lower"
        said = (
            f"It may be concluded that {found.variant} scores {better} on these items, averaged "
            f"over seeds{' that finish' if found.left_out else ''}."
        )
        return [said, _verdict_on_items(found)]
    if found.is_conclusive:
        said = "It may not be concluded that either is better, nor that they are equal"
        if found.detectable:
            said += (
                f": a difference under {100 * found.detectable:.1f} points would often go unseen"
            )
        return [f"{said}."]
    among = f", and this is one of {found.num_tests} tests" if found.num_tests > 1 else ""
    texts = [
        f"It may not be concluded that either is better: {found.num_pairs} pairs of runs give "
        f"no p below {_p(found.smallest_p)}{among}."
    ]
    seeds = math.ceil(needed_seeds(found.num_tests) / len(found.tasks))
    if seeds > min(found.num_seeds.values()):
        texts.append(f"{seeds} seeds could.")
    low, high = found.interval_with_items or (0.0, 0.0)
    if low > 0 or high < 0:
        texts.append(
            f"Student's interval over seeds and items, which takes scores to be near normal, has "
            f"it {'higher' if low > 0 else 'lower'} ({difference_range((low, high))})."
        )
    return texts


def _verdict_on_items(found: Comparison) -> str:
    if found.interval_with_items is None:
        return "Of other items nothing is known."
    low, high = found.interval_with_items
    shown = f"{difference_range(found.interval_with_items)} with other items too"
    if low > 0 or high < 0:
        return f"That holds for other items of the same kind ({shown})."
    return f"It may not be concluded for other items of the same kind ({shown})."


def spread_sentence(found: Comparison) -> str:
    """Say which variant spreads less over seeds, and whether that may be concluded."""
    if min(found.num_seeds.values(), default=0) < 3:
        return f"{_place(found)}: spread needs three shared seeds: nothing may be concluded on it."
    if found.std_ratio is None:
        return (
            f"{_place(found)}: all scores of {found.baseline} are equal, so a ratio of spreads has "
            "no meaning: nothing may be concluded on it."
        )
    between = "no interval can be made"
    if found.std_ratio_interval is not None:
        between = f"95 %: {ratio_range(found.std_ratio_interval)}"
    seen = (
        f"{_place(found)}: {found.variant} spreads {found.std_ratio:.2f} times as much over seeds "
        f"as {found.baseline} ({between}; {_tested(found.p_spread, found.p_spread_adjusted)})."
    )
    if found.p_spread_adjusted is not None and found.p_spread_adjusted <= RATE:
        less = "less" if found.std_ratio < 1 else "more"
        said = f"It may be concluded that {found.variant} spreads {less} on these items."
    else:
        said = "It may not be concluded that either spreads less, nor that they spread alike."
    return " ".join([seen, said, *_survivors(found)])


def _survivors(found: Comparison) -> list[str]:
    if not found.left_out:
        return []
    return [f"Only seeds that both finished are compared. Left out: {'. '.join(found.left_out)}."]


def _tested(p: float | None, adjusted: float | None) -> str:
    if p is None or adjusted is None:
        return "no test can be made"
    return f"p = {_p(p)}, {_p(adjusted)} corrected"


def _p(value: float) -> str:
    return "1" if value >= 0.9995 else f"{value:.3g}"


def _place(found: Comparison) -> str:
    return found.tasks[0] if len(found.tasks) == 1 else f"mean over {len(found.tasks)} tasks"


def difference_range(interval: Sequence[float]) -> str:
    """Return an interval of differences, in points.

    Args:
        interval: both ends, as fractions.

    Example:
        >>> difference_range((0.0, 0.0)), difference_range((0.5, 0.5)), difference_range((0, 0.1))
        ('equal in every seed', '+50.0 in every seed', '+0.0 to +10.0')
    """
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in interval)
    if interval[0] == interval[1]:
        return f"{low if interval[0] else 'equal'} in every seed"
    return f"{low} to {high}"


def ratio_range(interval: Sequence[float]) -> str:
    """Return an interval of ratios; an end so far that it bounds nothing is not written.

    Example:
        >>> ratio_range((0.5, 2)), ratio_range((0.5, 3700)), ratio_range((0.001, 3700))
        ('0.50 to 2.00', 'at least 0.50', 'no bound')
    """
    low, high = interval
    if high > _FARTHEST:
        return f"at least {low:.2f}" if low * _FARTHEST >= 1 else "no bound"
    return f"{low:.2f} to {high:.2f}" if low * _FARTHEST >= 1 else f"at most {high:.2f}"
