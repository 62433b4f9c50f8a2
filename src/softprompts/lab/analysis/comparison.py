"""What is known of a variant beside a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softprompts.lab.analysis.intervals import Interval


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
