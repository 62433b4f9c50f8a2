"""What a comparison allows to conclude, in words."""

from __future__ import annotations

import math

from softprompts.lab.analysis.comparison import Comparison

RATE = 0.05
"""How many families of tests may have a false find."""


def mean_sentence(found: Comparison) -> str:
    """Say which variant scores higher, and whether that may be concluded.

    Args:
        found: the comparison, with its adjusted p-values.

    Returns:
        One to four sentences.
    """
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
        f"over seeds: {_range(found.interval)}; {_tested(found.p, found.p_adjusted)})."
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
            f"no p below {_p(found.smallest_p)}{_among(found)}. {_needed(found)}",
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
        f"{'higher' if low > 0 else 'lower'} ({_range((low, high))})."
    ]


def _verdict_on_items(found: Comparison) -> str:
    if found.interval_with_items is None:
        return "Of other items nothing is known."
    low, high = found.interval_with_items
    shown = f"{_range(found.interval_with_items)} with other items too"
    if low > 0 or high < 0:
        return f"That holds for other items of the same kind ({shown})."
    return f"It may not be concluded for other items of the same kind ({shown})."


def spread_sentence(found: Comparison) -> str:
    """Say which variant spreads less over seeds, and whether that may be concluded.

    Args:
        found: the comparison, with its adjusted p-values.

    Returns:
        One to three sentences.
    """
    if min(found.num_seeds.values(), default=0) < 3:
        return f"{_place(found)}: spread needs three shared seeds: nothing may be concluded on it."
    if found.std_ratio is None:
        return (
            f"{_place(found)}: all scores of {found.baseline} are equal, so a ratio of spreads has "
            "no meaning: nothing may be concluded on it."
        )
    between = "no interval can be made"
    if found.std_ratio_interval is not None:
        between = "95 %: {:.2f} to {:.2f}".format(*found.std_ratio_interval)
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


def _needed(found: Comparison) -> str:
    pairs = math.ceil(1 + math.log2(found.num_tests / RATE) - 1e-9)
    seeds = math.ceil(pairs / len(found.tasks))
    return f"{seeds} seeds could."


def _among(found: Comparison) -> str:
    return f", and this is one of {found.num_tests} tests" if found.num_tests > 1 else ""


def _survivors(found: Comparison) -> list[str]:
    """Say that runs are left out, and which."""
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


def _range(interval: tuple[float, float]) -> str:
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in interval)
    return f"{low} to {high}"
