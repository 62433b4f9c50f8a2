"""What a study advises: the highest mean, said with how sure it is; never more than is shown."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import pytest
from scipy import stats

from softprompts.lab.analysis.permutations import smallest_p
from softprompts.lab.reports.advice import advice, verdicts
from softprompts.recipes.grid import expand
from softprompts.recipes.study import parse_study
from softprompts.recipes.study_size import RATE, needed_seeds

BASE = {
    "backbone": {"name": "smollm2"},
    "task": {"name": "bundled/sentiment"},
    "readout": {"kind": "text"},
}


def study(scores, majority=0.2, missing=(), **base):
    variants = {name: {"training.steps": 10 + n} for n, name in enumerate(scores)}
    seeds = len(next(iter(scores.values())))
    cells = expand(parse_study({"base": BASE | base, "variants": variants, "seeds": seeds}))
    lines = [
        {
            "variant": name,
            "point": {},
            "task": "bundled/sentiment",
            "seeds": list(range(seeds)),
            "scores": own,
            "mean": fmean(own),
            "std": stdev(own),
            "interval": (fmean(own) - 0.02, fmean(own) + 0.03) if stdev(own) else None,
            "majority": majority,
            "missing": [{"seed": 0, "reason": "diverged"}] if name in missing else [],
        }
        for name, own in scores.items()
    ]
    return {"cells": lines, "comparisons": [], "averages": []}, cells


def test_of_equal_means_the_steadier_is_taken_and_its_run_is_named():
    summary, cells = study({"wild": [0.7, 0.8, 0.9], "calm": [0.79, 0.8, 0.81]})
    taken, predict, export, more = advice(summary, cells, Path("a b"))
    assert taken == (
        "take calm: 80.0 ± 1.0 (95 % interval 78.0 to 83.0); as high as wild, and spreads less here"
    )
    same = {"one": [0.7, 0.8, 0.9], "two": [0.8, 0.7, 0.9]}
    assert advice(*study(same), Path("s"))[0].endswith("; as high as two")
    run = next(cell.identity for cell in cells if cell.variant == "calm")
    assert f"predict 'a b/runs/{run}' --input" in predict
    assert f"export 'a b/runs/{run}' --to vocabulary" in export
    assert more == "softprompts study 'a b/study.json' --out 'a b' --seeds auto"


def test_no_interval_leaves_what_a_score_may_be():
    summary, cells = study({"low": [0.02, 0.03], "high": [0.01, 0.99]})
    summary["cells"][1]["interval"] = (-5.7, 6.7)
    assert "(95 % interval 0.0 to 100.0)" in advice(summary, cells, Path("s"))[0]


@pytest.mark.parametrize(
    ("base", "to"),
    [
        ({"prompt": {"method": "p-tuning-v2"}}, "--to peft"),
        ({"backbone": {"name": "minilm"}, "readout": {"kind": "linear"}}, None),
        ({"prompt": {"method": "lora"}}, None),
    ],
)
def test_only_an_export_that_works_is_advised(base, to):
    told = advice(*study({"low": [0.5, 0.5], "high": [0.7, 0.71]}, **base), Path("s"))
    assert [to in line for line in told if " export " in line] == [True] * (to is not None)


def test_the_leader_is_to_beat_all_others():
    low, high = [0.5, 0.51, 0.52, 0.5, 0.51, 0.5], [0.7, 0.72, 0.71, 0.74, 0.7, 0.73]
    assert (
        "; shown to beat low (p = 0.031)"
        in advice(*study({"low": low, "high": high}), Path("s"))[0]
    )
    assert len(advice(*study({"low": low, "high": high}), Path("s"))) == 3
    three = {"low": low, "lower": [x - 0.1 for x in low], "high": high}
    assert "; shown to beat all 2 others (p = 0.031)" in advice(*study(three), Path("s"))[0]
    near = [high[0] + 0.01, *(x - 0.03 for x in high[1:])]
    assert advice(*study({**three, "near": near}), Path("s"))[0].endswith(
        "not shown to beat near (p = 0.062)"
    )
    few = {name: own[:5] for name, own in three.items()}
    assert advice(*study(few), Path("s"))[0].endswith("(p = 0.062); 1 more seed could tell")


def test_where_seeds_are_added_it_says_what_was_seen():
    summary, cells = study({"low": [0.5, 0.51], "high": [0.7, 0.72]})
    looks = {"said": "not shown to beat low (p = 0.3, corrected for 1 look) after 2 seeds"}
    assert advice({**summary, "looks": looks}, cells, Path("s"))[0].endswith(f"; {looks['said']}")


WILD = [0.9, 0.72, 0.95, 0.7, 0.9, 0.82]
CALM = [0.82, 0.83, 0.82, 0.83, 0.81, 0.82]


def test_a_variant_that_is_level_and_shown_steadier_is_named_too():
    test = stats.levene(WILD, CALM, center="median")
    p = 2 * stats.t.sf(test.statistic**0.5, 10)  # of one task, two-sided
    taken = advice(*study({"wild": WILD, "calm": CALM}), Path("s"))[0]
    assert p < RATE
    assert taken == (
        "take wild: 83.2 ± 10.3 (95 % interval 81.2 to 86.2); not shown to beat calm (p = 0.94); "
        f"calm, 82.2 ± 0.8, is level within error and is shown to spread less (p = {p:.2g})"
    )
    low = [x - 0.3 for x in WILD]
    taken = advice(*study({"low": low, "wild": WILD, "calm": CALM}), Path("s"))[0]
    assert taken.endswith(f"is shown to spread less (p = {2 * p:.2g})")


def test_half_the_spread_is_said_to_be_seen_here_and_no_more():
    half = [0.83, 0.77, 0.90, 0.77, 0.86, 0.82]
    taken = advice(*study({"wild": WILD, "half": half}), Path("s"))[0]
    assert taken.endswith("; half, 82.5 ± 5.1, is level within error and spreads less here")


@pytest.mark.parametrize(
    ("leader", "other"),
    [
        pytest.param(WILD, [x - 0.03 for x in CALM], id="outside the interval"),
        pytest.param([x + 0.001 for x in WILD], [0.999 * x for x in WILD], id="as wild"),
        pytest.param([0.95, 0.72], CALM[:2], id="of two seeds"),
        pytest.param(
            [0.84, 0.846, 0.836, 0.846, 0.838, 0.85], [0.83] * 5 + [0.831], id="shown to be beaten"
        ),
    ],
)
def test_no_other_variant_is_named(leader, other):
    taken = advice(*study({"leader": leader, "other": other}), Path("s"))[0]
    assert taken.startswith("take leader: ")
    assert "level within error" not in taken


def test_what_is_level_after_looks_is_named_after_what_was_seen():
    summary, cells = study({"wild": WILD, "calm": CALM})
    looks = {"said": "not shown to beat calm", "after": [6], "most": 12}
    taken = advice({**summary, "looks": looks}, cells, Path("s"))[0]
    assert "; not shown to beat calm; calm, 82.2 ± 0.8, is level within error and is " in taken


def test_over_several_tasks_level_and_steadier_are_those_of_means_over_tasks():
    summary, cells = study({"wild": WILD, "calm": CALM})
    second = [{**line, "task": "cb"} for line in summary["cells"]]
    for ends, is_named in (((0.8, 0.9), True), ((0.823, 0.9), False)):
        averages = [{"variant": "wild", "point": {}, "over_seeds": {"interval": ends}}]
        both = {"cells": [*summary["cells"], *second], "averages": averages}
        assert ("level within error" in advice(both, cells, Path("s"))[0]) == is_named


def test_nothing_is_taken_that_lost_runs_or_learned_nothing():
    scores = {"best": [0.9, 0.9], "other": [0.5, 0.6]}
    assert advice(*study(scores, missing=["best"]), Path("s"))[0] == (
        "take other: 55.0 ± 7.1 (95 % interval 53.0 to 58.0)"
    )
    assert advice(*study(scores, majority=0.95), Path("s")) == [
        "take none: the best, best, scores 90.0 ± 0.0, the majority 95.0"
    ]
    assert advice(*study(scores, missing=scores), Path("s")) == []


def test_over_several_tasks_the_mean_decides_and_a_lack_is_passed_over():
    summary, cells = study({"a": [0.7, 0.72], "b": [0.8, 0.82], "c": [0.95, 0.96]})
    other, _ = study({"a": [0.6, 0.62], "b": [0.3, 0.38]})
    second = [{**line, "task": "cb"} for line in other["cells"]]
    averages = [
        {"variant": name, "point": {}, "over_seeds": {"interval": ends}}
        for name, ends in (("b", (0.1, 0.2)), ("a", (0.61, 0.7)))
    ]
    both = {"cells": [*summary["cells"], *second], "averages": averages}
    said = advice(both, cells, Path("s"))
    assert said[0] == (
        "take a: 66.0 ± 1.4 over 2 tasks (95 % interval 61.0 to 70.0); not shown to beat b "
        "(p = 0.5); 1 more seed could tell"
    )
    assert said[1].endswith(" --output answers.jsonl  # bundled/sentiment")


@pytest.mark.parametrize(("tests", "seeds"), [(1, 6), (2, 7), (4, 8), (50, 11)])
def test_the_seeds_that_are_needed_are_the_fewest_that_can_show_anything(tests, seeds):
    assert needed_seeds(tests) == seeds
    assert tests * smallest_p(seeds) <= RATE < tests * smallest_p(seeds - 1)


@pytest.mark.parametrize(("p", "can"), list(product([0.01, 0.2], [True, False])))
def test_a_variant_has_one_line(p, can):
    one = {
        "variant": "a",
        "point": {},
        "baseline": "b",
        "tasks": ["cb"],
        "difference": 0.1,
        "interval": (-0.01, 0.21),
        "p_adjusted": p,
        "is_conclusive": can,
        "num_tests": 2,
        "num_seeds": {"cb": 5},
        "left_out": [],
    }
    how = "shown" if p < RATE else "not shown" if can else "not shown: 7 seeds could"
    expected = f"a: +10.0 against b (-1.0 to +21.0), p = {p}, {how}"
    assert verdicts({"comparisons": [one]}) == [expected]
