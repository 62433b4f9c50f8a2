"""Optimizers and schedules."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from softprompts.errors import RecipeError
from softprompts.recipes.training_config import TrainingConfig
from softprompts.training.building import build_plan
from softprompts.training.evaluation import best_column
from softprompts.training.optimizers import adafactor, adamw
from softprompts.training.schedules import constant, cosine, linear


def test_adamw_follows_the_update_rule():
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = adamw([{"params": [weight], "lr": 0.1}], weight_decay=0.5, beta1=0.8, beta2=0.9)
    weight.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    # after one step the bias-corrected moments are the gradient itself
    expected = torch.tensor([1.0, -2.0]) * (1 - 0.1 * 0.5) - 0.1 * torch.tensor([1.0, 1.0])
    torch.testing.assert_close(weight.detach(), expected)


def test_adafactor_has_a_fixed_rate():
    weight = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = adafactor([{"params": [weight], "lr": 0.25}])
    weight.grad = torch.full((3, 4), 7.0)
    optimizer.step()
    # a constant gradient is divided by its own root-mean-square: the step is the rate
    torch.testing.assert_close(weight.detach(), torch.full((3, 4), 0.75), atol=1e-4, rtol=0)


@pytest.mark.parametrize("schedule", [constant, linear, cosine])
def test_warmup_rises_and_nothing_exceeds_one(schedule):
    factors = [schedule(step, 20, warmup_steps=5) for step in range(20)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(0 < factor <= 1 for factor in factors)
    assert all(a >= b for a, b in pairwise(factors[5:]))


def test_where_schedules_end():
    assert constant(19, 20) == 1.0
    assert linear(20, 20) == 0.0
    assert cosine(20, 20) == pytest.approx(0.0)
    assert cosine(10, 20) == pytest.approx(0.5)


def test_best_column():
    assert best_column([0.1, 0.3, 0.3]) == 1
    assert best_column([-math.inf, -5.0]) == 1
    assert best_column([math.nan, -5.0]) == 1
    assert best_column([math.nan, math.nan]) == 0


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_a_warmup_that_epochs_do_not_get_through_is_refused(kind):
    data = {"epochs": 2, "batch_size": 4, "schedule": {"kind": kind, "warmup_steps": 5}}
    config = TrainingConfig.model_validate(data)
    assert build_plan(config, 12, 0).total_steps == 6
    with pytest.raises(RecipeError, match=r"must be less than the 4 updates of the run.* but is 5"):
        build_plan(config, 8, 0)


def test_a_warm_up_may_be_a_part_of_the_updates():
    part = TrainingConfig(steps=20, schedule={"kind": "cosine", "warmup_fraction": 0.25})
    steps = TrainingConfig(steps=20, schedule={"kind": "cosine", "warmup_steps": 5})
    plans = [build_plan(config, 100, 0) for config in (part, steps)]
    assert [plans[0].factor(i) for i in range(20)] == [plans[1].factor(i) for i in range(20)]
    both = {"kind": "cosine", "warmup_fraction": 0.25, "warmup_steps": 5}
    with pytest.raises(RecipeError, match=r"warmup_fraction` must be left out.*is 0\.25"):
        build_plan(TrainingConfig(steps=20, schedule=both), 100, 0)
