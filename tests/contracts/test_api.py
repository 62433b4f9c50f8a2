"""A run from Python says of itself what a recipe would say."""

from __future__ import annotations

import json

import pytest

import softprompts as sp
from softprompts.recipes.identity import identity
from softprompts.training.resources import load_configured_task


@pytest.mark.parametrize(("drawn", "said"), [(2, 2), (3, None)])
def test_a_run_names_the_sample_that_it_was_given(tiny, tmp_path, drawn, said):
    task = sp.load_task("bundled/sentiment", shots=4, seed=drawn)
    training = sp.TrainingConfig(steps=2, num_evaluations=1)
    result = sp.train(tiny("bert"), task, training=training, seed=3, out=tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    assert about["config"]["task"]["sample_seed"] == said
    assert about["identity"] == identity(result.config)
    again = load_configured_task(result.config.task, result.config.seed)
    assert again.digest() == about["data_digest"] == task.digest()


def test_a_task_is_described_in_a_line():
    task = sp.load_task("bundled/sentiment", shots=4)
    assert repr(task) == "Task('bundled/sentiment', 8 train, 0 held out, 360 validation)"
