"""Seeds are added until the leader is shown to lead, and an interruption changes nothing of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from softprompts.errors import RecipeError, RunFolderError
from softprompts.lab.studies.looks import all_runs, run_looks
from softprompts.lab.studies.store import Store
from softprompts.lab.studies.summary import summarize
from softprompts.recipes.grid import expand
from softprompts.recipes.study import parse_study
from softprompts.recipes.study_size import study_size

BASE = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}
VARIANTS = {"plain": {}, "long": {"prompt.length": 20}, "short": {"prompt.length": 2}}


def study(seeds=5, **more):
    data = {"name": "s", "base": BASE, "variants": VARIANTS, "seeds": seeds}
    return parse_study({**data, "more_seeds": more})


def result(score, seed, seconds=10.0):
    return {
        "status": "finished", "score": score, "last_score": score, "majority": 0.2, "num_cut": None,
        "metric": "accuracy", "num_items": 100, "split": "validation", "steps": 5, "seed": seed,
        "trainable_parameters": 1, "seconds": seconds,
    }  # fmt: skip


class Runs:
    """Gives each run a score instead of training it, and takes note of the looks."""

    def __init__(self, out, ahead, spread=0.02, most=None):
        self.out, self.most, self.seen = out, most, []
        self.ahead, self.spread = ahead, spread

    def score(self, cell):
        own = sorted(VARIANTS).index(cell.variant)
        noise = np.random.default_rng([cell.config.seed, own]).normal(0, self.spread)
        return 0.5 + self.ahead * (cell.variant == "long") + noise

    def __call__(self, one):
        if self.most is not None and len(self.seen) == self.most:
            raise KeyboardInterrupt
        cells = expand(one)
        Store(self.out, one, cells).open()
        self.seen.append(len(one.seeds))
        return summarize(
            one, cells, lambda cell: result(self.score(cell), cell.config.seed), lambda _: None
        )


def ran(out, ahead, changes=None, spread=0.02, **more):
    runs = Runs(out, ahead, spread)
    return run_looks(study(**{**more, **(changes or {})}), out, runs)["looks"], runs.seen


def test_a_clear_leader_takes_one_look_and_a_less_clear_one_more(tmp_path):
    looks, seen = ran(tmp_path / "a", 0.2)
    assert (looks["state"], looks["leader"], looks["after"], seen) == ("shown", "long", [7], [7])
    assert looks["said"] == (
        "shown to beat all 2 others (p = 0.045, corrected for 1 look) after 7 seeds"
    )
    looks, seen = ran(tmp_path / "b", 0.02)
    assert looks["state"] == "shown"
    assert looks["p"] <= 0.05
    assert seen == looks["after"] == [7, 10, 13]


def test_where_nothing_is_better_it_stops_by_hope_by_number_or_by_time(tmp_path):
    assert ran(tmp_path / "a", 0.0)[0]["state"] == "hopeless"
    looks, seen = ran(tmp_path / "b", 0.012, most=9)
    assert (looks["state"], seen) == ("most", [6, 9])
    looks, seen = ran(tmp_path / "c", 0.02, budget_seconds=3 * 10 * 11)
    assert (looks["state"], seen) == ("budget", [7, 10])
    assert looks["said"].endswith("after 10 seeds: 3 more do not fit the budget")
    looks, seen = ran(tmp_path / "c", 0.02, budget_seconds=1e6)  # it goes on where it stopped
    assert (looks["state"], seen) == ("shown", [10, 13])


def test_an_interrupted_study_comes_to_the_decision_that_it_would_have_come_to(tmp_path):
    whole, _ = ran(tmp_path / "a", 0.02)
    with pytest.raises(KeyboardInterrupt):
        run_looks(study(), tmp_path / "b", Runs(tmp_path / "b", 0.02, most=2))
    kept = json.loads((tmp_path / "b" / "study.json").read_text())
    assert (len(kept["seeds"]), kept["more_seeds"]["looks"]) == (10, [7, 10])
    again, seen = ran(tmp_path / "b", 0.02)
    assert again == whole
    assert seen == [10, 13]
    assert ran(tmp_path / "b", 0.02) == (whole, [13])


def test_p_is_corrected_by_the_most_seeds_so_that_stays_but_other_runs_begin_anew(tmp_path):
    ran(tmp_path, 0.02)
    with pytest.raises(RunFolderError, match=r"`more_seeds.most` must be 20.* but is 30"):
        ran(tmp_path, 0.02, most=30)
    other = {"base": {**BASE, "prompt": {"method": "residual"}}}
    fresh = parse_study({**study(most=30).model_dump(mode="json"), **other})
    runs = Runs(tmp_path, 0.2)
    assert run_looks(fresh, tmp_path, runs)["looks"]["after"] == runs.seen == [8]


def test_comparisons_with_the_baseline_allow_for_looks_too(tmp_path):
    seen = run_looks(study(), tmp_path, Runs(tmp_path, 0.02))
    once = summarize(
        parse_study({**study().model_dump(mode="json"), "seeds": 13, "more_seeds": None}),
        expand(study(seeds=13)),
        lambda cell: result(Runs(tmp_path, 0.02).score(cell), cell.config.seed),
        lambda _: None,
    )
    assert "looks" not in once
    for one, other in zip(seen["comparisons"], once["comparisons"], strict=True):
        assert one["difference"] == other["difference"]
        assert one["p"] > other["p"]
        assert one["smallest_p"] > other["smallest_p"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"more_seeds": {"most": 5}}, "`more_seeds.most` must be at least 6, but is 5"),
        ({"seeds": 30, "more_seeds": {}}, "must be at least the number of seeds, 30, but is 20"),
        ({"more_seeds": {"looks": [7]}}, r"must rise from 1 to 5, the seeds, but is \[7\]"),
        ({"seeds": 8, "more_seeds": {"looks": [7, 7]}}, r"but is \[7, 7\]"),
        ({"variants": {"plain": {}}, "more_seeds": {}}, "left out where there is one variant"),
    ],
)
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises(RecipeError, match=said):
        parse_study({**study().model_dump(mode="json"), **changes})


def test_it_is_said_beforehand_when_one_looks():
    assert study_size(expand(study()), study().more_seeds) == (
        "seeds are added until the leader is shown to lead, with looks after 7, 10, 13, 17, 20"
    )
    assert len(all_runs(study(seeds=[3, 9]))) == 60
