"""An average is what is scored, selected and kept, whatever happens to the run."""

from __future__ import annotations

import json

import pytest
import torch

from contracts.conftest import run_config
from softprompts.training.averages import exponential, tail
from softprompts.training.evaluation import evaluate_tasks
from softprompts.training.execution import encode_splits, execute
from softprompts.training.resources import Resources

STEPS = 5


class StopError(Exception):
    pass


class StopAfter:
    """Raises after so many updates."""

    def __init__(self, updates):
        self.updates = updates

    def update(self, done, total):
        if done >= self.updates:
            raise StopError


def configured(backbone, average=None, **training):
    options = {"steps": STEPS, "average": average, **training}
    return run_config(backbone, "residual", "linear", **options)


def states(backbone, task):
    """Return the state after each update."""
    found = []
    for steps in range(1, STEPS + 1):
        outcome = execute(configured(backbone, steps=steps), backbone, task)
        found.append({k: v.clone() for k, v in outcome.model.state().items()})
    return found


@pytest.mark.parametrize(
    ("average", "weights"),
    [
        ("none", (0, 0, 0, 0, 1)),
        ({"kind": "tail", "fraction": 0.6}, (0, 0, 1 / 3, 1 / 3, 1 / 3)),
        ({"kind": "tail", "fraction": 1.0}, (0.2, 0.2, 0.2, 0.2, 0.2)),
        ({"kind": "exponential", "decay": 0.5}, (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2)),
    ],
)
def test_what_is_kept_is_the_average_of_the_states(tiny, task, average, weights):
    backbone = tiny("bert")
    outcome = execute(configured(backbone, average), backbone, task)
    each = states(backbone, task)
    for name, value in outcome.model.state().items():
        expected = sum(w * state[name] for w, state in zip(weights, each, strict=True))
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [tail, exponential])
def test_the_first_states_count_alike(kind):
    assert kind(1, 10) == 1.0
    assert all(0 < kind(step, 10) <= 1 for step in range(1, 11))


@pytest.mark.parametrize("selection", ["last", "held-out"])
def test_an_interrupted_average_goes_on_bit_for_bit(tiny, task, tmp_path, selection):
    backbone = tiny("bert")
    more = {"selection": selection, "checkpoint_every_steps": 1}
    if selection == "held-out":
        more |= {"held_out_fraction": 0.4, "num_evaluations": 3}
    config = configured(backbone, "tail", **more)
    whole = execute(config, backbone, task, folder=tmp_path / "whole")
    for stop in (2, 4):
        with pytest.raises(StopError):
            execute(config, backbone, task, folder=tmp_path / "cut", progress=StopAfter(stop))
    again = execute(config, backbone, task, folder=tmp_path / "cut")
    files = [tmp_path / name / "prompt.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    for key in ("score", "last_score", "selected_step", "held_out_score"):
        assert again.result[key] == whole.result[key]


def test_scoring_an_average_does_not_disturb_training(tiny, task, tmp_path):
    backbone = tiny("bert")
    losses = []
    for count in (STEPS, 1):
        more = {"selection": "held-out", "held_out_fraction": 0.4, "num_evaluations": count}
        config = configured(backbone, "exponential", learning_rate=0.5, **more)
        execute(config, backbone, task, folder=tmp_path / str(count))
        text = (tmp_path / str(count) / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        losses.append([line["loss"] for line in lines if "split" not in line])
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == STEPS


def test_held_out_rows_are_scored_with_the_average(tiny, task, tmp_path):
    backbone = tiny("bert")
    more = {"selection": "held-out", "held_out_fraction": 0.4, "num_evaluations": 1}
    config = configured(backbone, "exponential", learning_rate=0.5, **more)
    outcome = execute(config, backbone, task, folder=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    (found,) = [line for line in lines if line.get("split") == "held_out"]
    splits = encode_splits(outcome.config, outcome.model, task, Resources())
    held_out = {name: split["held_out"] for name, split in splits.items()}
    (expected,) = evaluate_tasks(outcome.model, held_out).values()
    assert (found["score"], found["loss"]) == (expected.score, expected.loss)
