"""The loop does what its plan says: rates, evaluations, selection, stopping."""

from __future__ import annotations

import json

import pytest
import torch

from contracts.conftest import run_config
from softprompts.training.execution import execute
from softprompts.training.schedules import linear


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(backbone, task, folder, **training):
    options = {"selection": "held-out", "held_out_fraction": 0.4, **training}
    config = run_config(backbone, "prompt-tuning", "linear", **options)
    outcome = execute(config, backbone, task, folder=folder)
    lines = lines_of(folder)
    updates = [line for line in lines if "split" not in line]
    return outcome, updates, [line for line in lines if "split" in line]


def test_rates_follow_the_schedule_and_evaluations_are_spread(tiny, task, tmp_path):
    schedule = {"kind": "linear", "warmup_steps": 3}
    _, updates, held_out = run(
        tiny("bert"),
        task,
        tmp_path / "run",
        steps=10,
        num_evaluations=4,
        learning_rate=0.5,
        schedule=schedule,
    )
    expected = [0.5 * linear(step, 10, warmup_steps=3) for step in range(10)]
    assert [line["learning_rate"] for line in updates] == pytest.approx(expected)
    assert [line["step"] for line in updates] == list(range(1, 11))
    assert [line["step"] for line in held_out] == [2, 5, 8, 10]


def test_the_best_held_out_state_is_selected(tiny, task, tmp_path):
    outcome, _, held_out = run(
        tiny("bert"), task, tmp_path / "run", steps=24, num_evaluations=12, learning_rate=0.3
    )
    keys = [(line["score"], -line["loss"]) for line in held_out]
    assert len(set(keys)) > 1
    best = held_out[keys.index(max(keys))]
    assert outcome.result["selected_step"] == best["step"]
    assert outcome.result["held_out_score"] == best["score"]
    shorter, _, _ = run(
        tiny("bert"),
        task,
        tmp_path / "shorter",
        steps=best["step"],
        num_evaluations=1,
        learning_rate=0.3,
    )
    assert torch.equal(shorter.model.prompt.bake(), outcome.model.prompt.bake())


def test_patience_ends_a_run_that_no_longer_gains(tiny, task, tmp_path):
    outcome, updates, held_out = run(
        tiny("bert"),
        task,
        tmp_path / "run",
        steps=60,
        num_evaluations=60,
        learning_rate=3.0,
        patience=4,
    )
    assert outcome.result["steps"] == len(updates) < 60
    assert held_out[-1]["step"] - outcome.result["selected_step"] == 4


def test_without_selection_the_last_state_counts_and_all_rows_train(tiny, task, tmp_path):
    outcome, updates, held_out = run(
        tiny("bert"), task, tmp_path / "run", selection="last", steps=5, held_out_fraction=0.2
    )
    assert not held_out
    assert outcome.result["selected_step"] == outcome.result["steps"] == len(updates) == 5
    assert outcome.result["score"] == outcome.result["last_score"]
    assert outcome.result["held_out_score"] is None


def test_clipping_bounds_what_the_optimizer_sees(tiny, task, tmp_path, monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def watched(self, *arguments):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        seen.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    _, updates, _ = run(tiny("bert"), task, tmp_path / "run", steps=4, clip_norm=0.01)
    assert all(line["gradient_norm"] > 0.01 for line in updates)
    assert seen == pytest.approx([0.01] * 4, rel=1e-3)
