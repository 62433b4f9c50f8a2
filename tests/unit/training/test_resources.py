"""What runs share: tasks are drawn once, by the seed that the recipe says."""

from __future__ import annotations

import pytest

from softprompts.recipes.schema import TaskConfig
from softprompts.training.resources import Resources, load_configured_task


def sample(seed, **options):
    config = TaskConfig(name="bundled/question-type", shots=2, **options)
    return [row.source for row in Resources().task(config, seed).train]


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_sample_with_a_seed_of_its_own_is_the_same_for_every_run(seed):
    assert sample(seed, sample_seed=3) == sample(3)


def test_other_runs_draw_their_own():
    samples = [sample(seed) for seed in (0, 1, 5)]

    assert len({tuple(rows) for rows in samples}) == 3


def test_tasks_kept_for_one_seed_are_not_given_to_another():
    resources = Resources()
    config = TaskConfig(name="bundled/question-type", shots=2)
    fixed = config.model_copy(update={"sample_seed": 1})

    found = [resources.task(config, seed) for seed in (0, 1)] + [resources.task(fixed, 0)]

    assert found[0].train != found[1].train
    assert found[2].train == found[1].train == load_configured_task(fixed, 7).train
