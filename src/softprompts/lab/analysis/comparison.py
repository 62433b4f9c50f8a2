"""What is known of a variant beside a baseline, and what that allows to conclude, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softprompts.lab.analysis.intervals import Interval
from softprompts.recipes.study_size import RATE, needed_seeds


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline, on one task or on the mean over several.

    Differences are variant minus baseline, in fractions; ratios are variant by baseline. What
    cannot be computed is `None`, and the sentences say why.

    Attributes:
        variant: the variant.
        baseline: what it is compared with.
        tasks: the tasks, each with one shared seed or more.
        num_seeds: seeds that both finished, by task.
        num_pairs: their sum.
        left_out: what is missing, one text per variant and task.
        difference: mean over tasks of the mean difference over seeds.
        interval: 95 % over seeds, on these items.
        interval_with_items: 95 % over seeds and items; wider than it need be, as it does not use
            that both variants answer the same items. `None` where items are not known or a mean
            score is no share.
        p: of the sign-flip test.
        p_adjusted: Holm's, over the family.
        smallest_p: the least `p` that the pairs could have given.
        is_exact: whether the test went through all flips.
        is_conclusive: whether the least `p` would have been enough, given the other tests.
        num_tests: size of the family.
        std_ratio: standard deviation over seeds, as a ratio.
        std_ratio_interval: 95 %, by the jackknife.
        p_spread: of the Brown–Forsythe test.
        p_spread_adjusted: Holm's, over the family.
        improvement: how often a run of the variant beats one of the baseline.
        improvement_interval: 95 % over seeds.
        detectable: the difference that these seeds would have shown in 80 % of studies, by a
            t-test without correction.
        detectable_with_items: the same, had it to hold on other items, too.
        conclusion: what may be concluded on means.
        conclusion_on_spread: what may be concluded on spreads.
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


_FARTHEST = 100  # a ratio beyond this bounds nothing


def mean_sentence(found: Comparison) -> str:
    """Say which variant scores higher, and whether that may be concluded."""
    if found.difference is None:
        said = f"{_place(found)}: {found.variant} and {found.baseline} share no finished seed"
        return " ".join([f"{said}: nothing may be concluded.", *_survivors(found)])
    if found.interval is None:
        single = ", ".join(task for task, count in found.num_seeds.items() if count == 1)
        said = (
            f"{_place(found)}: {found.variant} − {found.baseline} = {_points(found.difference)}, "
            f"but they share one finished seed only on {single}: nothing may be concluded."
        )
        return " ".join([said, *_survivors(found)])
    seen = (
        f"{_place(found)}: {found.variant} − {found.baseline} = {_points(found.difference)} (95 % "
        f"over seeds: {difference_range(found.interval)}; {_tested(found.p, found.p_adjusted)})."
    )
    return " ".join([seen, *_verdict_on_mean(found), *_survivors(found)])


def _verdict_on_mean(found: Comparison) -> list[str]:
    if found.p_adjusted is not None and found.p_adjusted <= RATE:
        better = "higher" if (found.difference or 0) > 0 else "lower"
        said = (
            f"It may be concluded that {found.variant} scores {better} on these items, averaged "
            f"over seeds{' that finish' if found.left_out else ''}."
        )
        return [said, _verdict_on_items(found)]
    if not found.is_conclusive:
        return [
            f"It may not be concluded that either is better: {found.num_pairs} pairs of runs give "
            f"no p below {_p(found.smallest_p)}{_among(found)}.",
            *_needed(found),
            *_by_interval(found),
        ]
    said = "It may not be concluded that either is better, nor that they are equal"
    if found.detectable:
        said += f": a difference under {100 * found.detectable:.1f} points would often go unseen"
    return [f"{said}."]


def _by_interval(found: Comparison) -> list[str]:
    """Say what the interval over seeds and items tells where too few seeds can be tested."""
    low, high = found.interval_with_items or (0.0, 0.0)
    if low <= 0 <= high:
        return []
    return [
        f"Student's interval over seeds and items, which takes scores to be near normal, has it "
        f"{'higher' if low > 0 else 'lower'} ({difference_range((low, high))})."
    ]


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


def _needed(found: Comparison) -> list[str]:
    seeds = math.ceil(needed_seeds(found.num_tests) / len(found.tasks))
    return [f"{seeds} seeds could."] if seeds > min(found.num_seeds.values()) else []


def _among(found: Comparison) -> str:
    return f", and this is one of {found.num_tests} tests" if found.num_tests > 1 else ""


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


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points".replace("-", "−")


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
