"""A study recipe: its own fields, and every problem of its runs said once."""

from __future__ import annotations

from typing import Any

import pytest

from softprompts.errors import RecipeError
from softprompts.recipes import study as study_module
from softprompts.recipes.study import StudyConfig, merged, parse_study, points

BASE = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}


def problems(**fields: Any) -> tuple[str, ...]:
    try:
        parse_study({"base": BASE, **fields})
    except RecipeError as error:
        return error.problems
    return ()


def test_the_smallest_study_is_one_variant_with_five_seeds():
    study = parse_study({"base": BASE})

    assert study.variants == {"base": {}}
    assert study.seeds == (0, 1, 2, 3, 4)
    assert list(points(study)) == [("base", {})]


@pytest.mark.parametrize(("seeds", "expected"), [(1, (0,)), (3, (0, 1, 2)), ([7, 0], (7, 0))])
def test_seeds_are_a_number_or_a_list(seeds, expected):
    assert parse_study({"base": BASE, "seeds": seeds}).seeds == expected


def test_a_study_survives_its_own_dump():
    study = parse_study({"base": BASE, "seeds": [7, 0], "variants": {"a": None}, "name": "x"})

    assert parse_study(study.model_dump(mode="json")) == study


@pytest.mark.parametrize(
    "seeds",
    [
        *(0, -1, True, 1.0, "5", [], [1, 1], [-1], [True], [1.0], None),
        *(10001, 2**70, list(range(10001))),
    ],
)
def test_wrong_seeds(seeds):
    (found,) = problems(seeds=seeds)

    assert found.startswith(
        "`seeds` must be a whole number of at least 1 and at most 10000, or a list of at most "
        "10000 distinct whole numbers of at least 0, but is "
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": ""}, "`name` must be text of at least 1 character, but is ''."),
        ({"base": 3}, "`base` must be a mapping, but is 3."),
        ({"variants": {}}, "`variants` must be a collection of at least 1 entry, but is {}."),
        ({"variants": ["a"]}, """`variants` must be a mapping, but is ["a"]."""),
        ({"variants": {"a": 3}}, "`variants.a` must be a mapping, but is 3."),
        ({"variants": {"": {}}}, "text of at least 1 character, but is ''."),
        (
            {"variants": {"plain": {}, "new": {"prompt.length": 3}}, "baseline": "plian"},
            "`baseline` must be one of the variants plain, new, but is 'plian'. Did you mean "
            "'plain'?",
        ),
        ({"baseline": 3}, "`baseline` must be text, but is 3."),
        ({"grid": {"seed": [1]}}, "`grid` must leave the seed to `seeds`, but sets `seed`."),
        (
            {"grid": {"training.steps": 3}},
            "`grid.training.steps` must be a list or a mapping, but is 3.",
        ),
        ({"grid": {"training.steps": []}}, "must be a collection of at least 1 entry, but is []."),
        ({"grid": {"training.steps": [1, 1]}}, "must have distinct values, but has 1 again."),
        ({"grid": {"training.steps": {}}}, "must be a collection of at least 1 entry, but is {}."),
        ({"grid": {"training.steps": {"a": 1, "b": 1}}}, "distinct values, but has 1 again."),
        (
            {"grid": {"training.steps": {"a": 1, "b": "x"}}},
            "must be a whole number, but is 'x'. (variant base, training.steps 'b')",
        ),
        ({"grid": {"training..steps": [1]}}, "must name dotted fields of a run, but has 'trai"),
        ({"variants": {"a": {"seed": 1}}}, "`variants.a` must leave the seed to `seeds`, but se"),
        ({"base": {**BASE, "seed": 1}}, "`base.seed` must be left out: `seeds` sets it, but is 1"),
        ({"base": {**BASE, "sead": 1}}, "`sead` is an unknown key; did you mean `seed`?"),
        ({"task": {"name": "x"}}, "`task` is an unknown key; did you mean `base.task`?"),
        ({"variant": {}}, "`variant` is an unknown key; did you mean `variants`?"),
        (
            {"grid": {"prompt.length": [1]}, "variants": {"a": {"prompt": {}}}},
            "`variants.a` must leave the fields of the grid alone, but sets `prompt` beside the",
        ),
        (
            {"variants": {"a": {"prompt": {}, "prompt.length": 3}}},
            "`variants.a` must set a field once, but sets both `prompt` and `prompt.length`.",
        ),
    ],
)
def test_a_wrong_study_is_one_clear_sentence(fields, sentence):
    found = problems(**fields)

    assert sentence in found[0]
    assert len(found) == 1 or ".." in str(fields)


def test_what_is_too_large_is_refused_before_any_run_is_made(monkeypatch):
    monkeypatch.setattr(study_module, "read_run", lambda *_: pytest.fail("a run was made"))
    values = [0.001 * n for n in range(1, 41)]
    fields = ("learning_rate", "clip_norm", "weight_decay", "batch_size")
    grid = {f"training.{name}": values for name in fields}
    text = "a study must have at most 10000 variants at points of the grid and 50000 runs, but has "
    assert problems(grid=grid) == (f"{text}2560000 and 12800000.",)
    one = {"training.learning_rate": [float(n) for n in range(20_000)]}
    assert problems(grid=one) == (f"{text}20000 and 100000.",)
    few = {"training.learning_rate": values}
    assert problems(grid=few, seeds=10_000) == (f"{text}40 and 400000.",)


def test_a_field_of_many_parts_is_refused():
    found = problems(variants={"a": {"training." + ".".join("x" * 10_000): 1}})

    assert "a field must have at most 50 parts, but 'training.x." in found[0]
    assert "has 10001" in found[0]


def test_a_problem_of_every_run_is_said_once_without_a_place():
    found = problems(
        base={**BASE, "training": {"learning_rate": -1}},
        variants={"a": {}, "b": {"prompt.method": "residual"}},
        grid={"training.batch_size": [1, 2]},
    )

    assert found == ("`training.learning_rate` must be greater than 0, but is -1.",)


def test_a_problem_of_some_runs_names_them():
    found = problems(
        variants={"a": {}, "b": {"prompt.lenght": 3}},
        grid={"training.batch_size": [1, 0]},
    )

    assert found == (
        "`training.batch_size` must be at least 1, but is 0. "
        "(variant a, training.batch_size 0; b, training.batch_size 0)",
        "`prompt.lenght` is an unknown key; did you mean `prompt.length`? "
        "(variant b, training.batch_size 1; b, training.batch_size 0)",
    )


def test_many_places_are_counted():
    found = problems(
        variants={"a": {"seeds": 1}, "b": {}}, grid={"training.steps": [1, 2, 3, 4, 5]}
    )

    assert found[0].endswith(
        "(variant a, training.steps 1; a, training.steps 2; a, training.steps 3; and 2 more)"
    )


def test_problems_of_the_study_and_of_its_runs_come_together():
    found = problems(seeds=0, variants={"a": 3, "b": {"prompt.method": "none"}}, nam="x")

    assert [text.split("`")[1] for text in found] == ["variants.a", "seeds", "nam", "prompt.method"]


def test_a_wrong_grid_does_not_make_its_field_missing():
    base = {"backbone": {"name": "minilm"}}

    assert problems(base=base, grid={"task.name": 3}) == (
        "`grid.task.name` must be a list or a mapping, but is 3.",
    )


def test_a_change_through_a_value_is_refused():
    found = problems(variants={"a": {"backbone.name.x": 1}})

    assert found == ("`backbone.name.x` must lie in a mapping, but `backbone.name` is 'minilm'.",)


@pytest.mark.parametrize("data", [None, 3, "text", [1]])
def test_a_study_that_is_no_mapping(data):
    with pytest.raises(RecipeError, match="`recipe` must be a mapping, but is"):
        parse_study(data)


def test_merging_takes_the_base_then_the_variant_then_the_point():
    study = StudyConfig(
        base={**BASE, "prompt": {"rows": "residual", "length": 4}},
        variants={"a": {"prompt.rows.bottleneck": 3, "prompt.length": None}},
        grid={"task.name": ["bundled/entailment"]},
    )
    (place,) = points(study)
    before = study.model_dump()

    assert merged(study, *place) == {
        "backbone": {"name": "minilm"},
        "task": {"name": "bundled/entailment"},
        "prompt": {"rows": {"kind": "residual", "bottleneck": 3}, "length": None},
    }
    assert study.model_dump() == before


def test_the_grid_may_set_an_entry_of_a_list_that_variants_set():
    perturbations = ("masking", "gaussian-noise")
    variants = {
        name: {"regularizers": [{"kind": "ptp", "perturbation": name}]} for name in perturbations
    }
    grid = {"regularizers.0.weight": [0.5, 2.0]}
    study = parse_study({"base": BASE, "variants": variants, "grid": grid})
    before = study.model_dump()

    assert [merged(study, *place)["regularizers"] for place in points(study)] == [
        [{"kind": "ptp", "perturbation": name, "weight": weight}]
        for name in perturbations
        for weight in (0.5, 2.0)
    ]
    assert study.model_dump() == before
    grid = {"regularizers.0": [{"kind": "row-norm"}, {"kind": "ptp", "perturbation": "masking"}]}
    assert problems(variants={"a": {"regularizers": []}}, grid=grid)[0].startswith(
        "`regularizers.0` must name one of the entries of `regularizers`, but it has 0."
    )
    assert problems(variants={"a": {"prompt": {}}}, grid={"prompt.0length": [1]})[0].startswith(
        "`variants.a` must leave the fields of the grid alone, but sets `prompt`"
    )


def test_a_baseline_is_one_of_the_variants():
    variants = {"plain": {}, "new": {"prompt.length": 3}}
    assert parse_study({"base": BASE, "variants": variants}).baseline is None
    study = parse_study({"base": BASE, "variants": variants, "baseline": "new"})
    assert study.baseline == "new"
    assert parse_study(study.model_dump(mode="json")) == study


def test_a_baseline_that_is_wrong_itself_is_not_called_unknown():
    (found,) = problems(variants={"plain": {}, "new": 3}, baseline="new")
    assert found == "`variants.new` must be a mapping, but is 3."


def test_long_values_of_a_grid_may_differ_at_their_end():
    long = ["x" * 300 + end for end in "ab"]
    parse_study({"base": BASE, "grid": {"task.instruction": long}})
    (found,) = problems(grid={"task.instruction": [*long, long[0]]})
    assert found.startswith("`grid.task.instruction` must have distinct values, but has")


def test_named_tasks_are_no_variants_that_seeds_could_tell_apart():
    grid = {"task": {"a": BASE["task"], "b": {"name": "bundled/question-type"}}}
    (found,) = problems(grid=grid, more_seeds={}, seeds=7)
    assert found.startswith("`more_seeds` must be left out where there is one variant")
