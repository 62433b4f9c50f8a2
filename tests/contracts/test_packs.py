"""A pack of runs trains each as it would train alone."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.conftest import run_config
from softprompts.encoding.batch import collate
from softprompts.recipes.schema import RunConfig
from softprompts.seeding import generator
from softprompts.training.building import (
    build_model,
    build_optimizer,
    build_plan,
    choose_splits,
)
from softprompts.training.evaluation import EncodedSplit
from softprompts.training.forward import Part, score
from softprompts.training.journal import NoJournal
from softprompts.training.member import Member
from softprompts.training.pack import train_pack

READOUT = {"bert": "cloze", "gpt2": "text", "t5": "text"}


def member(config, backbone, task):
    model = build_model(config, backbone, task.format)
    splits = {
        name: EncodedSplit(rows, tuple(map(model.readout.encode, rows)))
        for name, rows in choose_splits(config, task).items()
    }
    plan = build_plan(config.training, len(splits["train"]), config.seed)
    optimizer = build_optimizer(config.training, model)
    return Member(model.prompt, model.readout, optimizer, plan, splits, NoJournal())


def variants(backbone, readout):
    """Return runs that differ in all that a pack may mix."""
    base = run_config(backbone, "prompt-tuning", readout, steps=6, learning_rate=0.1)
    residual = run_config(backbone, "residual", readout, steps=6, learning_rate=0.01)
    return [
        base,
        base.model_copy(update={"seed": 1}),
        residual.model_copy(update={"seed": 2}),
        run_config(backbone, "split", readout, steps=9, batch_size=2, accumulation_steps=2),
        run_config(backbone, "prompt-tuning", readout, steps=4, optimizer="adafactor"),
    ]


@pytest.mark.parametrize("kind", READOUT)
@pytest.mark.parametrize("is_linear", [True, False])
def test_a_pack_equals_single_runs(tiny, task, kind, is_linear):
    backbone = tiny(kind)
    configs = variants(backbone, "linear" if is_linear else READOUT[kind])
    alone = [member(config, backbone, task) for config in configs]
    for single in alone:
        train_pack(backbone, [single], task.format)
    together = [member(config, backbone, task) for config in configs]
    first = [m.prompt.bake() for m in together]
    train_pack(backbone, together, task.format)
    for single, packed, start in zip(alone, together, first, strict=True):
        assert packed.counters.step == single.counters.step == packed.plan.total_steps
        assert not torch.equal(packed.prompt.bake(), start)
        torch.testing.assert_close(packed.prompt.bake(), single.prompt.bake(), atol=1e-4, rtol=1e-4)


def test_a_diverging_run_leaves_the_others_alone(tiny, task):
    backbone = tiny("bert")
    calm = run_config(backbone, "prompt-tuning", "linear", steps=5)
    wild = run_config(
        backbone, "prompt-tuning", "linear", steps=5, learning_rate=1e30, clip_norm=None
    )
    alone = member(calm, backbone, task)
    train_pack(backbone, [alone], task.format)
    pair = [member(wild, backbone, task), member(calm, backbone, task)]
    train_pack(backbone, pair, task.format)
    divergence = pair[0].counters.divergence
    assert 1 < divergence["step"] <= 5
    assert not math.isfinite(float(divergence["loss"]))
    assert divergence["learning_rate"] == 1e30
    torch.testing.assert_close(pair[1].prompt.bake(), alone.prompt.bake(), atol=1e-4, rtol=1e-4)


def test_an_update_sees_the_gradient_of_its_whole_batch(tiny, task):
    """Length-sorted micro-batches and accumulation give the plain batch's gradient."""
    backbone = tiny("bert")
    config = run_config(backbone, "residual", "linear", batch_size=3, accumulation_steps=3)
    run = member(config, backbone, task)
    parts = run.parts(backbone)
    assert len(parts) > 1
    for part, weight in parts:
        loss = run.readout.loss(score(backbone, [part])[0], part.batch)
        (loss.sum() * weight).backward()
    cut = [p.grad.clone() for p in run.modules.parameters()]
    run.modules.zero_grad()
    batch = collate(run.train.encoded, backbone.tokenizer.pad_token_id)
    scores = score(backbone, [Part(run.prompt, run.readout, batch)])[0]
    run.readout.loss(scores, batch).mean().backward()
    for got, parameter in zip(cut, run.modules.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, atol=1e-5, rtol=1e-4)


def test_training_reads_and_changes_no_global_generator(tiny, task):
    backbone = tiny("bert")
    data = run_config(backbone, "residual", "linear", steps=3).model_dump(mode="json")
    data["prompt"]["rows"]["dropout"] = 0.3
    config = RunConfig.model_validate(data)
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        run = member(config, backbone, task)
        train_pack(backbone, [run], task.format)
        assert torch.equal(before, torch.random.get_rng_state())
        results.append(run.prompt.bake())
    assert torch.equal(*results)


def test_generators_are_apart():
    draws = {
        tuple(torch.rand(3, generator=generator(*path)).tolist())
        for path in ((0, "order", 1), (0, "order", 2), (1, "order", 1), (0, "dropout", 1))
    }
    assert len(draws) == 4


def test_noise_follows_an_example_into_any_micro_batch(tiny, task):
    backbone = tiny("bert")
    chosen = []
    for size, accumulation in ((9, 1), (3, 3), (1, 9)):
        config = run_config(
            backbone, "adap-pos", "linear", batch_size=size, accumulation_steps=accumulation
        )
        run = member(config, backbone, task)
        splits = {}
        for part, _ in run.parts(backbone):
            score(backbone, [part])
            places = torch.cat(part.choices.splits).tolist()
            splits |= {i.ids: s for i, s in zip(part.batch.items, places, strict=True)}
        chosen.append(splits)
    assert len(set(chosen[0].values())) > 1
    assert chosen[0] == chosen[1] == chosen[2]
