"""Tuning: rungs, ranks, candidates, and what a recipe may not say of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import RecipeError, RunFolderError, StorageError
from softprompts.lab.studies.tuning import ranked, rung_run, rung_sizes, rung_steps, tried
from softprompts.lab.studies.tuning_record import Trial, read_record_of, record_path
from softprompts.recipes.grid import expand
from softprompts.recipes.loading import load_recipe
from softprompts.recipes.resolving import resolve
from softprompts.recipes.study import merged, parse_study, tunable
from softprompts.recipes.tuning import candidates, multiples

BASE: dict[str, Any] = {
    "backbone": {"name": "minilm"},
    "task": {"name": "bundled/sentiment"},
    "training": {"steps": 20, "learning_rate": 0.3},
}
RATE = "training.learning_rate"


def study(tune: Any, **more: Any) -> dict[str, Any]:
    return {"base": BASE, "seeds": 2, "tune": tune, **more}


def problems(tune: Any, **more: Any) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        parse_study(study(tune, **more))
    return caught.value.problems


@given(st.integers(2, 60), st.integers(2, 9))
def test_rungs_halve_down_to_two_or_more(num_candidates, keep):
    sizes = rung_sizes(num_candidates, keep)
    assert sizes[0] == num_candidates
    assert 2 <= sizes[-1] <= keep
    for before, after in itertools.pairwise(sizes):
        assert (after - 1) * keep < before <= after * keep


@given(st.integers(1, 5000), st.integers(2, 9), st.integers(1, 6))
def test_each_rung_has_so_many_times_the_updates(total, keep, num_rungs):
    steps = rung_steps(total, keep, num_rungs)
    assert len(steps) == num_rungs
    assert steps[-1] == total
    assert steps[0] >= 1
    for before, after in itertools.pairwise(steps):
        assert (before - 1) * keep < after <= before * keep


def test_few_candidates_have_one_rung_at_the_full_updates():
    assert (rung_sizes(4, 5), rung_steps(30, 5, 1)) == ((4,), (30,))


def trial(
    value: Any, score: float | None, loss: float | None = None, diverged: int = 0, done: int = 10
) -> Trial:
    return Trial(value=value, score=score, loss=loss, num_diverged=diverged, updates_done=done)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([trial(1, 0.5), trial(2, 0.7), trial(3, 0.6)], [2, 3, 1]),
        ([trial(1, 0.5, 0.4), trial(2, 0.5, 0.3)], [2, 1]),
        ([trial(1, 0.5, None), trial(2, 0.5, 0.9)], [2, 1]),
        ([trial(3, 0.5, 0.3), trial(1, 0.5, 0.3), trial(2, 0.5, 0.3)], [1, 2, 3]),
        ([trial("b", 0.5), trial("a", 0.5)], ["b", "a"]),
        ([trial(1, 0.9, 0.1, 1), trial(2, 0.2, 0.9)], [2, 1]),
        ([trial(2, None, None, 2), trial(1, None, None, 2)], [1, 2]),
    ],
)
def test_score_then_loss_then_the_smaller_value(found, expected):
    assert [one.value for one in ranked(found)] == expected


def test_what_a_candidate_did_is_read_from_its_runs(tmp_path):
    results = []
    for number, (score, loss) in enumerate([(0.5, 0.25), (1.0, 0.75)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        lines = [
            {"step": 2, "loss": 9.0},
            {"step": 2, "split": "held_out", "score": score, "loss": loss},
            {"step": 4, "split": "held_out", "score": 0.1, "loss": 5.0},
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        result = {"status": "finished", "held_out_score": score, "selected_step": 2, "steps": 4}
        results.append((folder, {**result, "score": 0.0}))
    assert tried(0.1, results) == trial(0.1, 0.75, 0.5, 0, 8)
    lost = {"status": "diverged", "held_out_score": 1.0, "selected_step": 2, "steps": 3}
    assert tried(0.1, [results[0], (tmp_path, lost)]) == trial(0.1, 0.5, 0.25, 1, 7)
    assert tried(0.1, [(tmp_path, lost)]) == trial(0.1, None, None, 1, 3)
    (tmp_path / "0" / "metrics.jsonl").write_text("{")
    with pytest.raises(StorageError, match="must be lines of JSON, but is not"):
        tried(0.1, results)


def test_a_rung_is_short_holds_out_and_reports_one_row():
    base = {
        **BASE,
        "prompt": {"method": "adap-pos"},
        "training": {
            "steps": 90,
            "selection": "last",
            "schedule": {"kind": "linear", "warmup_steps": 31},
            "temperature": {"kind": "exponential", "steps": 40},
        },
    }
    (run,) = tunable(parse_study({"base": base}))
    data = rung_run(resolve(run.config), 10, 90)
    training = data["training"]
    assert (training["steps"], training["epochs"], training["selection"]) == (10, None, "held-out")
    assert (training["schedule"]["warmup_steps"], training["temperature"]["steps"]) == (3, 4)
    assert data["task"]["num_items"] == 1
    assert "seed" not in data
    (cell,) = expand(parse_study({"variants": {"one": data}, "seeds": 1}))
    assert cell.config.prompt == resolve(run.config).prompt


def test_every_task_of_a_mixture_reports_one_row():
    tasks = {"a": {"name": "bundled/sentiment"}, "b": {"name": "bundled/sentiment"}}
    base = {"backbone": BASE["backbone"], "mixture": {"tasks": tasks}}
    (run,) = tunable(parse_study({"base": base}))
    data = rung_run(resolve(run.config), 3, 9)
    assert [task["num_items"] for task in data["mixture"]["tasks"].values()] == [1, 1]
    assert len(expand(parse_study({"variants": {"one": data}, "seeds": 1}))) == 1


def test_candidates_are_multiples_of_what_the_recipe_says():
    found = parse_study(study({"field": RATE}))
    assert found.tune is not None
    assert candidates(found.tune, tunable(found)) == [0.03, 0.1, 0.3, 0.9, 3.0]
    assert (found.tune.seeds, found.tune.keep, found.tune.chosen) == ((1000, 1001), 3, None)
    assert multiples(1) == [1, 3, 10]


def test_what_was_chosen_is_in_the_runs_of_its_cell():
    chosen = [
        {"variant": v, "point": {"prompt.length": n}, "value": n / 100 + (v == "residual")}
        for v in ("plain", "residual")
        for n in (3, 5)
    ]
    found = parse_study(
        study(
            {"field": RATE, "chosen": chosen},
            variants={
                "plain": {RATE: 7.0},
                "residual": {"prompt.method": "residual"},
                "shown": {"prompt.method": "zero-shot", "readout": "cloze"},
            },
            grid={"prompt.length": [3, 5]},
        )
        | {"variants": {"plain": {RATE: 7.0}, "residual": {"prompt.method": "residual"}}}
    )
    rates = {
        (c.variant, c.point["prompt.length"]): c.config.training.learning_rate
        for c in expand(found)
    }
    assert rates == {
        ("plain", 3): 0.03,
        ("plain", 5): 0.05,
        ("residual", 3): 1.03,
        ("residual", 5): 1.05,
    }
    assert merged(found, "plain", {"prompt.length": 5})["training"]["learning_rate"] == 0.05
    assert tunable(found)[0].config.training.learning_rate == 7.0
    assert parse_study(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("tune", "text"),
    [
        ({}, "`tune.field` must be given, but is missing."),
        ({"field": RATE, "value": [1]}, "`tune.value` is an unknown key; did you mean `tune.val"),
        ({"field": "training.learning_rat"}, "did you mean `training.learning_rate`"),
        ({"field": "learning_rate"}, "did you mean `training.learning_rate`?"),
        ({"field": "training..x"}, "`tune.field` must be a dotted field of a run, but is 'traini"),
        ({"field": "training"}, "must be one number or component of prompt, readout, adapt"),
        ({"field": "task.shots"}, "or mixture.sampling, but is 'task.shots'."),
        ({"field": "seed"}, "or mixture.sampling, but is 'seed'."),
        ({"field": "training.steps"}, "must leave the updates and the held-out rows to tuning, wh"),
        ({"field": "training.selection"}, "held-out rows to tuning, which sets them, but is 'trai"),
        ({"field": RATE, "values": [0.1]}, "`tune.values` must be a collection of at least 2 entr"),
        ({"field": RATE, "values": []}, "`tune.values` must be a collection of at least 2 entries"),
        ({"field": RATE, "values": [0.1, 0.1]}, "must be distinct, but have 0.1 again."),
        ({"field": RATE, "values": [1, 1.0]}, "must be distinct, but have 1.0 again."),
        ({"field": RATE, "values": [0.1, "x"]}, "must be numbers for `training.learning_rate`, bu"),
        ({"field": RATE, "values": [0.1, True]}, "must be numbers for `training.learning_rate`, b"),
        ({"field": "training.optimizer", "values": ["adamw", 3]}, "must be names or mappings for"),
        (
            {"field": "prompt.method", "values": ["a", "b"]},
            "must be numbers for `prompt.method`, b",
        ),
        ({"field": "prompt.method"}, "no positive number, but are null and `prompt.method` is"),
        (
            {"field": "training.clip_norm", "values": None, "keep": 1},
            "`tune.keep` must be at least",
        ),
        (
            {"field": RATE, "values": [0.1, -2]},
            "`tune`: `training.learning_rate` must be greater t",
        ),
        ({"field": "training.optimizer", "values": ["adamw", "adamx"]}, "did you mean"),
        ({"field": "prompt.rows.bottlenec", "values": [3, 4]}, "`tune`: `prompt.rows"),
        ({"field": RATE, "seeds": [1, 7]}, "`tune.seeds` must be others than those of the study"),
        (
            {"field": RATE, "seeds": 0},
            "`tune.seeds` must be a whole number of at least 1 and at mo",
        ),
        (
            {"field": RATE, "chosen": []},
            "`tune.chosen` must have a choice for every variant that i",
        ),
        (3, "`tune` must be a mapping"),
    ],
)
def test_wrong_tuning(tune, text):
    (found,) = problems(tune)
    assert text.lower() in found.lower()


def test_a_candidate_that_fits_one_variant_alone_is_named_with_the_others():
    variants = {"residual": {"prompt.method": "residual"}, "plain": {}}
    (found,) = problems({"field": "prompt.rows.bottleneck", "values": [2, 4]}, variants=variants)
    assert found.startswith("`tune`: `prompt.rows.bottleneck` is an unknown key")
    assert found.endswith("(variant plain)")


def test_own_values_that_differ_have_candidates_around_all_of_them():
    variants = {"slow": {}, "fast": {RATE: 3.0, "prompt.length": 5}}
    tuned = parse_study(study({"field": RATE}, variants=variants))
    found = candidates(tuned.tune, tunable(tuned))
    assert found == [0.03, 0.0949, 0.3, 0.949, 3.0, 9.49, 30.0]
    (wrong,) = problems({"field": "prompt.rows.bottleneck"}, variants={"a": {}, "b": {RATE: 1.0}})
    assert "where the recipe says no positive number, but are null" in wrong


def test_what_else_would_set_the_field_is_refused():
    grid = {RATE: [0.1, 0.2]}
    assert problems({"field": RATE}, grid=grid) == (
        "`grid` must leave `training.learning_rate` to `tune`, but sets `training.learning_rate`.",
    )
    tune = {"field": "training.optimizer", "values": ["adamw", "adafactor"]}
    (found,) = problems(tune, variants={"a": {"training.optimizer.weight_decay": 0.1}})
    assert found.startswith("`variants.a` must leave what lies in `training.optimizer` to `tune`")


def test_methods_that_train_nothing_are_not_tuned():
    base = {**BASE, "prompt": {"method": "zero-shot"}, "readout": "text"}
    base["backbone"] = {"name": "smollm2"}
    (found,) = problems({"field": RATE}, base=base)
    assert found.startswith("`tune` must have a method to tune, but no variant trains anything")


def test_wrong_runs_are_said_before_wrong_tuning():
    (found,) = problems({"field": "nothing"}, base={**BASE, "prompt": {"length": -1}})
    assert "`prompt.length`" in found


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        ("{", StorageError, "must be JSON"),
        ("{}", StorageError, "must have `field`"),
        (
            {"field": "a", "values": 3, "seeds": [], "keep": 3, "fingerprint": "", "choices": []},
            StorageError,
            "must have `untrained`",
        ),
        (
            {
                **{"field": "a", "values": 3, "seeds": [], "keep": 3, "fingerprint": ""},
                **{"choices": [], "untrained": []},
            },
            RunFolderError,
            "`values` must be a list, but is 3",
        ),
    ],
)
def test_a_broken_record_is_refused(tmp_path, content, error, text):
    path = record_path(tmp_path)
    path.parent.mkdir()
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(error, match=text):
        read_record_of(tmp_path)


def test_overrides_reach_tuning():
    found = load_recipe("quickstart", ["tune.field=training.learning_rate", "tune.seeds=3"])
    assert found.tune.seeds == (1000, 1001, 1002)
