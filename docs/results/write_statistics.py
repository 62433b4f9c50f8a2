"""Measure the statistics by simulation, and write the table into their page.

    python docs/results/write_statistics.py simulate docs/results/statistics.json
    python docs/results/write_statistics.py page docs/results/statistics.json docs/statistics.md

The first takes minutes, the second none. Scores of two variants A and B share seeds: their normal
scores correlate by 0.3. A kind of score says how a normal score becomes one:

- normal: `0.6 + 0.03 z`;
- skewed: `0.7 − 0.05 e`, `e` exponential: most seeds are good, some are bad;
- discrete: `0.6 + 0.02 z`, rounded to 56ths: an accuracy on 56 items, with ties. One standard
  deviation is taken as one item.

Intervals of one task's mean are measured once more, for 5, 10 and 20 seeds, on scores that are more
skewed: see `SKEWED`.

Where items are drawn, too, run `r` of variant `v` is right on item `i` with probability
`logistic(0.5 + 1.5 a_i + 0.7 b_vi + 0.1 c_r)`, `a`, `b` and `c` normal: on items without end, A
and B are alike.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from other_intervals import (
    IMPROVEMENT_METHODS,
    MEAN_METHODS,
    ONE_TASK_METHODS,
    RATIO_METHODS,
    crossed_interval,
    improvement_by,
    mean_by,
    ratio_by,
)
from scipy import stats

from softprompts.lab.analysis.comparisons import compare
from softprompts.lab.analysis.improvement import improvement_interval
from softprompts.lab.analysis.permutations import sign_flip_test
from softprompts.lab.analysis.scores import ScoreTable, SeedScore
from softprompts.lab.analysis.spreads import brown_forsythe, std_ratio_interval
from softprompts.lab.analysis.statistics import mean_interval

SEEDS = (5, 10)
NUM_STUDIES, NUM_ITEM_STUDIES, NUM_RESAMPLES = 2500, 4000, 999
NUM_TASKS, NUM_ITEMS, CORRELATION = 3, 56, 0.3
START, END = "<!-- simulation -->\n", "<!-- end of simulation -->\n"
Scores = np.ndarray

KINDS: dict[str, Callable[[Scores], Scores]] = {
    "normal": lambda z: 0.6 + 0.03 * z,
    "skewed": lambda z: 0.7 + 0.05 * stats.norm.logcdf(z),
    "discrete": lambda z: np.round(56 * (0.6 + 0.02 * z)) / 56,
}

SKEWED: dict[str, tuple[Callable[[Scores], Scores], float]] = {
    "normal": (lambda z: z, 0.0),
    "exponential": (stats.norm.logcdf, -1.0),
    "lognormal, 0.5": (lambda z: -np.exp(0.5 * z), -np.exp(0.125)),
    "lognormal, 1": (lambda z: -np.exp(z), -np.exp(0.5)),
    "half bad": (lambda z: _two_kinds(z, 0.5), -0.5),
    "a fifth bad": (lambda z: _two_kinds(z, 0.2), -0.2),
}
"""How normal scores become others, and the mean of those; of the last two, bad seeds score 1 less,
and all differ by a tenth."""


def _two_kinds(z: Scores, share: float) -> Scores:
    """Return scores of good and of bad seeds."""
    rest = stats.norm.cdf(z)
    within = np.where(rest < share, rest / share, (rest - share) / (1 - share))
    return 0.1 * stats.norm.ppf(within) - (rest < share)


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


def intervals(
    kind: str, n: int, generator: np.random.Generator
) -> Iterator[tuple[str, bool, float]]:
    """Make every interval of one study: its name, whether it covers, its width."""
    made = (generator, NUM_RESAMPLES)
    score, whole = KINDS[kind], WHOLE[kind]
    a, b = (score(z) for z in draw(generator, NUM_TASKS, n))
    better = raised(kind, a)
    truths: dict[str, tuple[float, Callable]] = {}
    for method in MEAN_METHODS:
        truths[f"mean, {method}"] = whole.mean(), lambda m=method: mean_by(m, a[:1], *made)
        truths[f"mean, {NUM_TASKS} tasks, {method}"] = (
            whole.mean(),
            lambda m=method: mean_by(m, a, *made),
        )
    truths["difference, t"] = 0.0, lambda: mean_interval(a[:1] - b[:1])
    for method in RATIO_METHODS:
        truths[f"ratio, {method}"] = (
            1.0,
            lambda m=method: ratio_by(m, a[:1], b[:1], *made),
        )
        truths[f"ratio, {NUM_TASKS} tasks, {method}"] = (
            1.0,
            lambda m=method: ratio_by(m, a, b, *made),
        )
    for method in IMPROVEMENT_METHODS:
        truths[f"improvement, {method}"] = (
            0.5,
            lambda m=method: improvement_by(m, a[:1], b[:1], *made),
        )
        truths[f"improvement, one std better, {method}"] = (
            BETTER[kind],
            lambda m=method: improvement_by(m, better[:1], b[:1], *made),
        )
    truths[f"improvement, {NUM_TASKS} tasks, score"] = 0.5, lambda: improvement_interval(a, b)
    for name, (truth, make) in truths.items():
        found = make()
        if found is None:
            yield name, False, float("nan")
        else:
            yield name, holds(found, truth), found[1] - found[0]


def holds(interval: tuple[float, float], truth: float) -> bool:
    """Return whether an interval holds the truth, up to rounding."""
    return interval[0] - 1e-9 <= truth <= interval[1] + 1e-9


def tests(x: Scores, y: Scores, generator: np.random.Generator) -> Iterator[tuple[str, bool]]:
    """Make every test of one study: its name, whether it says that A and B differ."""
    for name, num in (("", 1), (f", {NUM_TASKS} tasks", NUM_TASKS)):
        gaps = x[:num] - y[:num]
        p = sign_flip_test(gaps, generator, num_resamples=NUM_RESAMPLES).p
        yield f"mean: sign flips{name}", p <= 0.05
        yield f"mean: t{name}", not holds(mean_interval(gaps), 0)
        p_spread = brown_forsythe(x[:num], y[:num])
        yield f"spread: Brown–Forsythe{name}", p_spread is not None and p_spread <= 0.05
        ratio = std_ratio_interval(x[:num], y[:num])
        yield f"spread: jackknife{name}", ratio is not None and not holds(ratio, 1)


def item_intervals(n: int, generator: np.random.Generator) -> Iterator[tuple[str, bool, float]]:
    """Make intervals of the difference, of one study whose items are drawn: as `intervals` does."""
    difficulty = 0.5 + 1.5 * generator.standard_normal(NUM_ITEMS)
    answers = []
    for _ in "AB":
        runs = 0.1 * generator.standard_normal((n, 1))
        logits = difficulty + 0.7 * generator.standard_normal(NUM_ITEMS) + runs
        answers.append((generator.random(logits.shape) < 1 / (1 + np.exp(-logits))) * 1.0)
    runs = [
        SeedScore(variant, "task", seed, float(score))
        for variant, rights in zip("AB", answers, strict=True)
        for seed, score in enumerate(rights.mean(axis=1))
    ]
    (found,) = compare(ScoreTable(runs, {"task": NUM_ITEMS}), "B", generator)
    texts = ["".join(map(str, line.astype(int))) for rights in answers for line in rights]
    known = [replace(run, answers=text) for run, text in zip(runs, texts, strict=True)]
    (paired,) = compare(ScoreTable(known), "B", np.random.default_rng(0))
    crossed = crossed_interval(*answers, generator, num_resamples=NUM_RESAMPLES)
    for name, made in (
        ("over seeds: `interval`", found.interval),
        ("over seeds and items: `interval_with_items`, answers known", paired.interval_with_items),
        ("over seeds and items: `interval_with_items`, scores alone", found.interval_with_items),
        ("over seeds and items: `crossed_interval`", crossed),
    ):
        yield name, holds(made, 0), made[1] - made[0]


def raised(kind: str, scores: Scores) -> Scores:
    """Return scores that are one standard deviation better; ties stay ties."""
    better = scores + STEPS[kind]
    return np.round(56 * better) / 56 if kind == "discrete" else better


WHOLE = {kind: quantiles(score) for kind, score in KINDS.items()}
STEPS = {kind: whole.std() for kind, whole in WHOLE.items()} | {"discrete": 1 / 56}
BETTER = {kind: share_above(raised(kind, whole), whole) for kind, whole in WHOLE.items()}


def sources(kind: str) -> dict[str, Callable[[Scores, Scores], tuple[Scores, Scores]]]:
    """Return how A and B come from normal scores, by what is counted."""
    score = KINDS[kind]
    narrow = {"normal": 0.015, "skewed": 0.025, "discrete": 0.01}[kind]
    halves = {
        "normal": lambda z: 0.6 + narrow * z,
        "skewed": lambda z: 0.7 - 0.05 + narrow + narrow * stats.norm.logcdf(z),
        "discrete": lambda z: np.round(56 * (0.6 + narrow * z)) / 56,
    }
    return {
        "alike": lambda a, b: (score(a), score(b)),
        "spreads 1 : 2": lambda a, b: (halves[kind](a), score(b)),
        "one std apart": lambda a, b: (raised(kind, score(a)), score(b)),
    }


class Tally:
    """Counts, per name and place, how often something is so, and how wide intervals are."""

    def __init__(self) -> None:
        self.hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        self.spans: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, place: str, name: str, is_hit: bool, width: float = 0.0) -> None:
        """Count one."""
        self.hits[name][place].append(bool(is_hit))
        self.spans[name][place].append(width)

    def figures(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return share, median width and share of what could not be made, by name and place."""
        found: dict = {}
        for name, places in self.hits.items():
            for place, hits in places.items():
                widths = np.array(self.spans[name][place])
                is_made = np.isfinite(widths)
                found.setdefault(name, {})[place] = {
                    "share": round(sum(hits) / int(is_made.sum()), 5),
                    "width": round(float(np.median(widths[is_made])), 5),
                    "undefined": round(float(1 - is_made.mean()), 5),
                }
        return found


def simulate_skewed(num_studies: int) -> dict:
    """Return how often intervals of one task's mean hold it, by the number of seeds."""
    covered = {}
    for n in (5, 10, 20):
        tally = Tally()
        for number, (kind, (score, truth)) in enumerate(SKEWED.items()):
            generator = np.random.default_rng([n, 100 + number])
            for _ in range(num_studies):
                scores = score(generator.standard_normal(n))
                for method in ONE_TASK_METHODS:
                    low, high = mean_by(method, [scores], generator, NUM_RESAMPLES)
                    tally.add(kind, method, holds((low, high), truth), high - low)
        covered[str(n)] = tally.figures()
    return covered


def simulate(num_studies: int, num_item_studies: int) -> dict:
    """Return coverage of intervals, and how often tests say that A and B differ."""
    covered, on_items = Tally(), Tally()
    rejected: dict[str, Tally] = defaultdict(Tally)
    for n in SEEDS:
        for number, kind in enumerate(KINDS):
            generator = np.random.default_rng([n, number])
            place = f"{kind}, {n}"
            for _ in range(num_studies):
                for name, is_hit, width in intervals(kind, n, generator):
                    covered.add(place, name, is_hit, width)
                for case, make in sources(kind).items():
                    pair = make(*draw(generator, NUM_TASKS, n))
                    for name, is_found in tests(*pair, generator):
                        rejected[case].add(place, name, is_found)
        generator = np.random.default_rng([n, len(KINDS)])
        for _ in range(num_item_studies):
            for name, is_hit, width in item_intervals(n, generator):
                on_items.add(str(n), name, is_hit, width)
    return {
        "num_studies": num_studies,
        "num_item_studies": num_item_studies,
        "num_resamples": NUM_RESAMPLES,
        "covered": covered.figures(),
        "rejected": {case: tally.figures() for case, tally in rejected.items()},
        "items": on_items.figures(),
        "skewed": simulate_skewed(num_studies),
    }


def table(figures: dict, heading: str, key: str = "share", digits: int = 1) -> list[str]:
    """Return a table with a line per name and a column per place, in percent or points."""
    places = list(next(iter(figures.values())))
    lines = [f"| {heading} | {' | '.join(places)} |", "| --- |" + " ---: |" * len(places)]
    for name, row in figures.items():
        cells = [f"{100 * row[place][key]:.{digits}f}" for place in places]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def error_of(share: float, count: int) -> str:
    """Return the standard error of a simulated share, in percent."""
    return f"{100 * math.sqrt(share * (1 - share) / count):.1f}"


def page(found: dict) -> str:
    """Return the part of the page that figures make."""
    count, few = found["num_studies"], found["num_item_studies"]
    covered, rejected = found["covered"], found["rejected"]
    gaps = {n: row for n, row in covered.items() if any(c["undefined"] for c in row.values())}
    means = {n: row for n, row in covered.items() if n.startswith(("mean", "difference"))}
    lines = [
        f"{count} studies per column (the number is that of seeds), {found['num_resamples']} "
        f"resamples. The standard error of a share near 5 or 95 % is {error_of(0.05, count)} "
        f"points, of one near 50 % {error_of(0.5, count)}.",
        "",
        "How often 95 % intervals hold the truth, in percent:",
        "",
        *table(covered, "interval"),
        "How often they could not be made, in percent; the shares above are of the others:",
        "",
        *table(gaps, "interval", "undefined"),
        "Median width of the intervals of means, in points:",
        "",
        *table(means, "interval", "width"),
        "How often tests at 5 % say that A and B differ though they are alike, in percent:",
        "",
        *table(rejected["alike"], "test"),
        "How often they say so where A spreads half as much as B and has the same mean: for tests "
        "of means a false find, for tests of spread a true one:",
        "",
        *table(rejected["spreads 1 : 2"], "test"),
        "How often they say so where A scores one standard deviation higher and spreads alike:",
        "",
        *table(rejected["one std apart"], "test"),
        "How often 95 % intervals of the difference hold the truth *for items without end*, in "
        f"percent, from {few} studies on {NUM_ITEMS} items (standard error {error_of(0.05, few)}):",
        "",
        *table(found["items"], "interval, by seeds"),
        "Their median width, in points:",
        "",
        *table(found["items"], "interval, by seeds", "width"),
    ]
    for n, figures in found["skewed"].items():
        lines += [
            f"How often 95 % intervals of one task's mean hold it, {n} seeds, in percent:",
            "",
            *table(figures, "interval"),
        ]
    lines += [
        "Their median width with 5 seeds, in standard deviations of normal scores or, in the last "
        "two, in distances from good to bad:",
        "",
        *[line.replace("%", "") for line in table(_halved(found["skewed"]["5"]), "interval")],
    ]
    return "\n".join(lines)


def _halved(figures: dict) -> dict:
    """Return widths as a table's shares."""
    return {
        name: {place: {"share": cell["width"] / 100} for place, cell in row.items()}
        for name, row in figures.items()
    }


def refreshed(text: str, found: dict) -> str:
    """Return a page with its figures made again."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return before + START + page(found) + END + after


def main(arguments: list[str]) -> None:
    """Simulate, or write the page."""
    verb, data, *rest = arguments
    if verb == "simulate":
        counts = [int(text) for text in rest] or [NUM_STUDIES, NUM_ITEM_STUDIES]
        start = time.process_time()
        Path(data).write_text(json.dumps(simulate(*counts), indent=1) + "\n")
        print(f"{time.process_time() - start:.0f} seconds", file=sys.stderr)
    else:
        text = Path(rest[0]).read_text()
        Path(rest[0]).write_text(refreshed(text, json.loads(Path(data).read_text())))


if __name__ == "__main__":
    main(sys.argv[1:])
