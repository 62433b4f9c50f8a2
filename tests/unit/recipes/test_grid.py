"""A study becomes runs: all of them, in order, each with its identity."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import RecipeError
from softprompts.recipes.grid import expand
from softprompts.recipes.identity import identity
from softprompts.recipes.loading import load_recipe
from softprompts.recipes.resolving import resolve
from softprompts.recipes.study import StudyConfig

BASE = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}


def test_variants_are_outermost_and_seeds_innermost():
    study = StudyConfig(
        base=BASE,
        variants={"plain": {}, "residual": {"prompt.method": "residual"}},
        grid={
            "task.name": ["bundled/sentiment", "bundled/entailment"],
            "training.batch_size": [4, 8],
        },
        seeds=[5, 2],
    )
    cells = expand(study)

    found = [
        (cell.variant, cell.task, cell.config.training.batch_size, cell.config.seed)
        for cell in cells
    ]
    tasks = ["bundled/sentiment", "bundled/entailment"]
    assert found == list(itertools.product(["plain", "residual"], tasks, [4, 8], [5, 2]))
    assert cells[0].point == {"task.name": "bundled/sentiment", "training.batch_size": 4}
    assert {cell.config.prompt.rows.kind for cell in cells[8:]} == {"residual"}


def test_cells_are_resolved_and_know_their_identity():
    for cell in expand(load_recipe("quickstart")):
        assert resolve(cell.config) == cell.config
        assert identity(cell.config) == cell.identity
        assert cell.task == cell.config.task.name


def test_expanding_twice_is_the_same():
    study = load_recipe("fewglue")

    assert expand(study) == expand(study)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    st.sets(st.integers(0, 99), min_size=1, max_size=3),
)
def test_every_combination_comes_once(lengths, sizes, seeds):
    study = StudyConfig(
        base=BASE,
        variants={f"length-{n}": {"prompt.length": n} for n in lengths},
        grid={"training.batch_size": sizes},
        seeds=sorted(seeds),
    )
    cells = expand(study)

    assert len(cells) == math.prod(map(len, (lengths, sizes, seeds)))
    assert len({cell.identity for cell in cells}) == len(cells)


def test_a_cells_configuration_is_its_own():
    study = StudyConfig(base=BASE, variants={"a": {}, "b": {"prompt.length": 3}}, seeds=1)
    first, second = expand(study)

    assert (first.config.prompt.length, second.config.prompt.length) == (10, 3)
    assert "prompt" not in study.base


def test_a_grid_may_hold_whole_components():
    rows = [{"kind": "residual", "bottleneck": n} for n in (2, 4)]
    cells = expand(StudyConfig(base=BASE, grid={"prompt.rows": rows}, seeds=1))

    assert [cell.config.prompt.rows.options["bottleneck"] for cell in cells] == [2, 4]


def test_a_grid_may_name_its_values_and_the_names_of_tasks_are_what_they_are_called():
    tasks = {
        "remarks": {"name": "bundled/sentiment", "shots": 4},
        "the same": {"name": "bundled/sentiment", "shots": 8},
    }
    lengths = {"short": 2, "long": 9}
    grid = {"task": tasks, "prompt.length": lengths}
    found = expand(StudyConfig(base={"backbone": {"name": "minilm"}}, grid=grid, seeds=1))
    plain = {"task": list(tasks.values()), "prompt.length": [2, 9]}
    nameless = expand(StudyConfig(base={"backbone": {"name": "minilm"}}, grid=plain, seeds=1))

    assert [cell.identity for cell in found] == [cell.identity for cell in nameless]
    assert [cell.task for cell in found] == ["remarks", "remarks", "the same", "the same"]
    assert {cell.task for cell in nameless} == {"bundled/sentiment"}
    assert found[1].point == {"task": "remarks", "prompt.length": "long"}
    assert (found[1].config.task.shots, found[1].config.prompt.length) == (4, 9)


def test_two_variants_that_are_the_same_run_are_refused():
    study = StudyConfig(
        base=BASE,
        variants={"plain": {}, "lester": {"prompt.method": "prompt-tuning"}},
        seeds=3,
        name="twice",
    )

    with pytest.raises(RecipeError, match=r"\(plain\) and \(lester\) are the same run") as caught:
        expand(study)

    assert len(caught.value.problems) == 1
    assert caught.value.source == "twice"


def test_two_points_that_are_the_same_run_are_refused():
    study = StudyConfig(base=BASE, grid={"backbone.device": ["cpu", "cuda"]}, seeds=1)

    with pytest.raises(RecipeError, match=r"\(base, backbone.device 'cpu'\) and .* 'cuda'\) are"):
        expand(study)


def test_every_problem_of_every_run_is_reported():
    study = StudyConfig(
        base={"backbone": {"name": "minilm"}},
        variants={"a": {"task.name": "bundled/sentiment"}, "b": {"training.steps": -3}},
    )

    with pytest.raises(RecipeError, match=r"`training.steps` .* but is -3") as caught:
        expand(study)

    assert caught.value.problems == (
        "`task` must be given, but is missing. (variant b)",
        "`training.steps` must be at least 1, but is -3. (variant b)",
    )
    assert caught.value.source == "study"
