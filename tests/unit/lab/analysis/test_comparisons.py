"""Variants against a baseline, figure by figure and word by word."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import numpy as np
import pytest
from analysis_material import OTHERS, TASKS, differences, generator, paired_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from softprompts.errors import DataError
from softprompts.lab.analysis.comparisons import Comparison, compare, holm
from softprompts.lab.analysis.improvement import improvement_interval, probability_of_improvement
from softprompts.lab.analysis.limits import crossed_variances, detectable_difference
from softprompts.lab.analysis.permutations import sign_flip_test
from softprompts.lab.analysis.scores import ScoreTable, SeedScore
from softprompts.lab.analysis.spreads import brown_forsythe, std_ratio, std_ratio_interval
from softprompts.lab.analysis.statistics import mean_interval

NAMES = ("cb", "rte", "wic")


def table(num_items=None, **variants):
    """Build a table from scores per task; `None` is a run that diverged."""
    runs = [
        SeedScore(variant, task, seed, score, "" if score is not None else "diverged")
        for variant, tasks in variants.items()
        for task, scores in zip(NAMES, tasks, strict=False)
        for seed, score in enumerate(scores)
    ]
    return ScoreTable(runs, num_items)


def only(scores, baseline="plain"):
    (found,) = compare(scores, baseline, generator())
    return found


def test_one_task_is_what_the_parts_say():
    found = only(table(new=TASKS[:1], plain=OTHERS[:1]))
    first, second = TASKS[:1], OTHERS[:1]
    gaps = differences(first, second)
    assert (found.variant, found.baseline, found.tasks) == ("new", "plain", ("cb",))
    assert (found.num_seeds, found.num_pairs, found.left_out) == ({"cb": 5}, 5, ())
    assert found.difference == pytest.approx(np.mean(gaps))
    assert found.interval == mean_interval(gaps)
    assert found.p == found.p_adjusted == sign_flip_test(gaps, generator()).p
    assert found.std_ratio == std_ratio(first, second)
    assert found.std_ratio_interval == std_ratio_interval(first, second)
    assert found.p_spread == found.p_spread_adjusted == brown_forsythe(first, second)
    assert found.improvement == probability_of_improvement(first, second)
    assert found.improvement_interval == improvement_interval(first, second)
    assert found.detectable == pytest.approx(detectable_difference(stats.sem(gaps[0]), 4))
    assert (found.interval_with_items, found.detectable_with_items) == (None, None)


def test_items_add_their_variance():
    found = only(table({"cb": 56}, new=TASKS[:1], plain=OTHERS[:1]))
    means = np.array([np.mean(TASKS[0]), np.mean(OTHERS[0])])
    seeds = stats.sem(differences(TASKS[:1], OTHERS[:1])[0]) ** 2
    total = seeds + (means * (1 - means) / 56).sum()
    df = total**2 / (seeds**2 / 4)
    half = stats.t.ppf(0.975, df) * total**0.5
    gap = means[0] - means[1]
    assert found.interval_with_items == pytest.approx((gap - half, gap + half))
    assert found.detectable_with_items == pytest.approx(detectable_difference(total**0.5, df))
    assert found.detectable < found.detectable_with_items


def answered(shares, num_items=40):
    """Return a table of runs whose answers are known, right on items drawn at these shares."""
    draws, runs = generator(3), []
    for variant, share in shares.items():
        easy = draws.random(num_items)
        for seed in range(5):
            right = (easy + 0.3 * draws.random(num_items) < share).astype(int)
            text = "".join(map(str, right))
            runs.append(SeedScore(variant, "cb", seed, right.mean(), answers=text))
    return ScoreTable(runs, {"cb": num_items}), runs


def test_answers_pair_the_items():
    scores, runs = answered({"new": 0.9, "plain": 0.6})
    found, gaps = only(scores), np.empty((5, 40))
    for seed, (one, other) in enumerate(zip(runs[:5], runs[5:], strict=True)):
        gaps[seed] = np.array([*map(int, one.answers)]) - np.array([*map(int, other.answers)])
    seeds, (items, shared) = stats.sem(gaps.mean(axis=1)) ** 2, crossed_variances(gaps)
    total = max(seeds + items - shared, seeds, items)
    df = total**2 / (seeds**2 / 4 + items**2 / 39)
    half = stats.t.ppf(0.975, df) * total**0.5
    expected = (gaps.mean() - half, gaps.mean() + half)
    assert found.interval_with_items == pytest.approx(expected)
    alone = only(ScoreTable([replace(run, answers="") for run in runs], {"cb": 40}))
    assert np.ptp(found.interval_with_items) < np.ptp(alone.interval_with_items)
    assert found.interval == alone.interval


def runs_of(**lines):
    return [
        SeedScore(variant, "cb", seed, np.mean([*map(int, line)]), answers=line)
        for variant, own in lines.items()
        for seed, line in enumerate(own)
    ]


def test_an_interval_with_items_is_never_narrower_than_seeds_or_items_alone():
    """Noise at each seed and item alone is in both, and taken out once, but not from more."""
    draws, floors = generator(8), set()
    for _ in range(40):
        new, plain = draws.integers(0, 2, (2, 3, 12))
        runs = runs_of(new=map("".join, new.astype(str)), plain=map("".join, plain.astype(str)))
        found, gaps = only(ScoreTable(runs)), new - plain
        items, shared = crossed_variances(gaps)
        seeds = stats.sem(gaps.mean(axis=1)) ** 2
        floors.add((items - shared < 0, seeds - shared < 0))
        total = max(seeds + items - shared, seeds, items)
        df = total**2 / (seeds**2 / 2 + items**2 / 11)
        half = stats.t.ppf(0.975, df) * total**0.5
        assert np.ptp(found.interval_with_items) == pytest.approx(2 * half)
    assert {(True, False), (False, True)} <= floors


def test_seeds_that_are_all_alike_leave_the_items():
    runs = runs_of(new=["11110111"] * 5, plain=["10110100"] * 5)
    found = only(ScoreTable(runs))
    gaps = np.array([0, 1, 0, 0, 0, 0, 1, 1])
    half = stats.t.ppf(0.975, 7) * stats.sem(gaps)
    expected = (gaps.mean() - half, gaps.mean() + half)
    assert found.interval_with_items == pytest.approx(expected)


def test_one_item_is_not_paired():
    runs = runs_of(new=list("110"), plain=list("010"))
    alone = only(ScoreTable([replace(run, answers="") for run in runs], {"cb": 1}))
    assert only(ScoreTable(runs, {"cb": 1})) == alone


def test_items_that_both_variants_answer_alike_add_nothing():
    """Variants that differ by whole seeds, each right on all items or on none of them."""
    lines = {"plain": "10110", "new": "11010"}
    runs = [
        SeedScore(variant, "cb", seed, float(one), answers=one * 40)
        for variant, line in lines.items()
        for seed, one in enumerate(line)
    ]
    found = only(ScoreTable(runs, {"cb": 40}))
    assert found.interval_with_items == pytest.approx(found.interval)


def test_answers_that_some_runs_lack_or_count_otherwise_are_not_paired():
    scores, runs = answered({"new": 0.9, "plain": 0.6})
    expected = only(ScoreTable([replace(run, answers="") for run in runs], {"cb": 40}))
    for text in ("", "1" * 39):
        changed = ScoreTable([replace(runs[0], answers=text), *runs[1:]], {"cb": 40})
        assert only(changed) == expected
    assert only(scores) != expected


def test_several_tasks_come_each_and_together():
    sizes = {"cb": 56, "rte": 277, "wic": 638}
    found = compare(table(sizes, new=TASKS, plain=OTHERS), "plain", generator())
    assert [c.tasks for c in found] == [("cb",), ("rte",), ("wic",), NAMES]
    whole = found[-1]
    assert whole.num_seeds == {"cb": 5, "rte": 4, "wic": 6}
    assert whole.difference == pytest.approx(np.mean([c.difference for c in found[:3]]))
    assert whole.interval == mean_interval(differences(TASKS, OTHERS))
    assert whole.p_spread == brown_forsythe(TASKS, OTHERS)
    items = sum(
        np.mean(scores) * (1 - np.mean(scores)) / size
        for tasks in (TASKS, OTHERS)
        for scores, size in zip(tasks, sizes.values(), strict=True)
    )
    seeds = [np.var(gaps, ddof=1) / len(gaps) for gaps in differences(TASKS, OTHERS)]
    total = (sum(seeds) + items) / 9
    df = (9 * total) ** 2 / sum(v**2 / (n - 1) for v, n in zip(seeds, (5, 4, 6), strict=True))
    half = stats.t.ppf(0.975, df) * total**0.5
    expected = (whole.difference - half, whole.difference + half)
    assert whole.interval_with_items == pytest.approx(expected)
    assert "mean over 3 tasks: new − plain" in whole.conclusion


def test_each_family_is_corrected_by_itself():
    third = [[x + 0.1 for x in task] for task in OTHERS]
    found = compare(table(new=TASKS, plain=OTHERS, third=third), "plain", generator())
    singles = [c for c in found if len(c.tasks) == 1]
    whole = [c for c in found if len(c.tasks) > 1]
    for family, size in ((singles, 6), (whole, 2)):
        assert [c.p_adjusted for c in family] == holm([c.p for c in family])
        assert [c.p_spread_adjusted for c in family] == holm([c.p_spread for c in family])
        assert {c.num_tests for c in family} == {size}


def test_a_table_without_the_baseline_is_refused():
    with pytest.raises(DataError, match="variant must be one of new, plain, but is 'plian'"):
        compare(table(new=TASKS, plain=OTHERS), "plian", generator())


def test_other_variants_change_nothing_but_the_correction():
    alone = compare(table(new=TASKS, plain=OTHERS), "plain", generator())
    extra = [[0.9] * len(task) for task in TASKS]
    among = compare(table(extra=extra, new=TASKS, plain=OTHERS), "plain", generator())
    family = {"p_adjusted", "p_spread_adjusted", "num_tests", "is_conclusive"}
    for one, other in zip(alone, [c for c in among if c.variant == "new"], strict=True):
        for field in fields(Comparison):
            if field.name not in family and not field.name.startswith("conclusion"):
                assert getattr(one, field.name) == getattr(other, field.name), field.name


def test_the_same_generator_says_the_same():
    scores = table(new=TASKS, plain=OTHERS)
    first, again, other = (compare(scores, "plain", generator(seed)) for seed in (0, 0, 1))
    assert first == again
    assert not first[-1].is_exact
    assert first[-1].p != other[-1].p
    assert first[-1].p == pytest.approx(other[-1].p, abs=0.03)


@settings(deadline=None, max_examples=60)
@given(paired_tasks(least=1, most=7), st.booleans(), st.data())
def test_whatever_the_scores_there_is_an_answer(tasks, has_items, data):
    """Ties, equal scores, single seeds, missing runs: no crash, no NaN, and always a sentence."""
    first, second = (
        [[x if data.draw(st.integers(0, 9)) else None for x in task] for task in side]
        for side in tasks
    )
    sizes = dict.fromkeys(NAMES, 56) if has_items else None
    for found in compare(table(sizes, new=first, plain=second), "plain", generator()):
        for field in fields(Comparison):
            value = getattr(found, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            assert not any(isinstance(x, float) and not np.isfinite(x) for x in numbers), field.name
        for text in (found.conclusion, found.conclusion_on_spread):
            assert "may be concluded" in text or "may not be concluded" in text
            assert not re.search(r"nan|inf\b|None", text)
        if found.p is not None:
            assert found.smallest_p - 1e-12 <= found.p <= found.p_adjusted <= 1


def steady(gain, size, base=0.6):
    """Two variants of which one is better on every seed."""
    plain = base + 0.01 * np.sin(np.arange(size))
    return {"new": [list(plain + gain + 0.002 * np.cos(np.arange(size)))], "plain": [list(plain)]}


def test_five_seeds_on_one_task_show_nothing_and_say_why():
    found = only(table(**steady(0.2, 5)))
    assert (found.p, found.is_conclusive) == (0.0625, False)
    assert found.conclusion.startswith("cb: new − plain = +20.0 points (95 % over seeds: +19.8 to")
    assert "It may not be concluded that either is better" in found.conclusion
    assert "5 pairs of runs give no p below 0.0625. 6 seeds could." in found.conclusion


@pytest.mark.parametrize(("gain", "word"), [(0.2, "higher"), (-0.2, "lower"), (0.02, "")])
def test_too_few_seeds_for_a_test_still_have_an_interval_over_seeds_and_items(gain, word):
    found = only(table({"cb": 200}, **steady(gain, 5)))
    said = f"which takes scores to be near normal, has it {word} ("
    assert (said in found.conclusion) == bool(word)
    assert ("Student's interval" in found.conclusion) == bool(word)
    assert "Student's interval" not in only(table({"cb": 200}, **steady(gain, 6))).conclusion


def test_six_seeds_on_one_task_can_show_something():
    found = only(table(**steady(0.2, 6)))
    assert (found.p, found.is_conclusive) == (0.03125, True)
    assert "It may be concluded that new scores higher on these items" in found.conclusion
    assert found.conclusion.endswith("Of other items nothing is known.")
    worse = only(table(**steady(-0.2, 6)))
    assert "new scores lower" in worse.conclusion
    assert worse.difference == pytest.approx(-found.difference, abs=0.01)


def test_what_holds_on_these_items_need_not_on_others():
    few = only(table({"cb": 56}, **steady(0.1, 6)))
    assert "may be concluded that new scores higher on these items" in few.conclusion
    assert "may not be concluded for other items of the same kind" in few.conclusion
    many = only(table({"cb": 5000}, **steady(0.1, 6)))
    assert "That holds for other items of the same kind (+" in many.conclusion


def test_among_many_tests_more_seeds_are_needed():
    variants = {f"v{i}": steady(0.0, 6)["new"] for i in range(10)}
    found = compare(table(**variants, **steady(0.2, 6)), "plain", generator())[-1]
    assert (found.p, found.p_adjusted) == (0.03125, pytest.approx(11 * 0.03125))
    assert "no p below 0.0312, and this is one of 11 tests. 9 seeds could." in found.conclusion
    assert 2.0 ** (1 - 9) * 11 <= 0.05 < 2.0 ** (1 - 8) * 11


def test_what_was_not_shown_may_still_be_there():
    noisy = {"new": [[0.5, 0.7, 0.6, 0.65, 0.55, 0.6]], "plain": [[0.6, 0.55, 0.7, 0.5, 0.65, 0.6]]}
    found = only(table(**noisy))
    assert found.is_conclusive
    text = f"nor that they are equal: a difference under {100 * found.detectable:.1f} points"
    assert text in found.conclusion


def test_runs_that_diverged_are_named_and_narrow_the_claim():
    scores = steady(0.2, 8)
    scores["new"][0][3] = None
    found = only(table(**scores))
    assert found.num_seeds == {"cb": 7}
    assert found.left_out == ("new on cb: diverged seed 3",)
    assert "averaged over seeds that finish." in found.conclusion
    ending = "Only seeds that both finished are compared. Left out: new on cb: diverged seed 3."
    assert found.conclusion.endswith(ending)
    assert ending in found.conclusion_on_spread


def test_no_shared_seed_no_conclusion():
    none = only(table(new=[[None, 0.5]], plain=[[0.5, None]]))
    assert (none.difference, none.p, none.p_adjusted) == (None, None, None)
    assert none.conclusion == (
        "cb: new and plain share no finished seed: nothing may be concluded. Only seeds that both "
        "finished are compared. Left out: new on cb: diverged seed 0. plain on cb: diverged seed 1."
    )
    single = only(table(new=[[0.7]], plain=[[0.5]]))
    assert "= +20.0 points, but they share one finished seed only on cb: nothing" in (
        single.conclusion
    )
    assert "spread needs three shared seeds" in single.conclusion_on_spread


def test_a_task_without_shared_seeds_is_left_out_of_the_mean():
    found = compare(
        table(new=[TASKS[0], [None] * 4], plain=[OTHERS[0], OTHERS[1]]), "plain", generator()
    )[-1]
    assert found.tasks == ("cb",)
    assert "new on rte: diverged seeds 0, 1, 2, 3" in found.conclusion


def test_spread_in_words():
    size = 12
    plain = 0.6 + 0.1 * np.sin(np.arange(size) * 1.7)
    calm = 0.6 + 0.01 * np.cos(np.arange(size))
    less = only(table(new=[list(calm)], plain=[list(plain)]))
    assert "It may be concluded that new spreads less on these items." in less.conclusion_on_spread
    more = only(table(new=[list(plain)], plain=[list(calm)]))
    assert "It may be concluded that new spreads more on these items." in more.conclusion_on_spread
    alike = only(table(new=TASKS[:1], plain=OTHERS[:1]))
    assert "nor that they spread alike" in alike.conclusion_on_spread
    flat = only(table(new=TASKS[:1], plain=[[0.6] * 5]))
    assert "all scores of plain are equal" in flat.conclusion_on_spread
    assert flat.std_ratio is None
    still = only(table(new=[[0.6] * 5], plain=OTHERS[:1]))
    assert "new spreads 0.00 times as much" in still.conclusion_on_spread
    assert "no interval can be made" in still.conclusion_on_spread
