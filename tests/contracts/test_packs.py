"""A pack of runs trains each as it would train alone."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.conftest import run_config
from softprompts.encoding.batch import collate
from softprompts.recipes.schema import RunConfig
from softprompts.seeding import generator
from softprompts.training.building import build_model
from softprompts.training.execution import encode_splits, make_member
from softprompts.training.forward import Part, score
from softprompts.training.journal import NoJournal
from softprompts.training.pack import train_pack
from softprompts.training.resources import Resources

READOUT = {"bert": "cloze", "gpt2": "text", "t5": "text"}


def member(config, backbone, task):
    model = build_model(config, backbone, task.format)
    splits = encode_splits(config, model, task, Resources())
    return make_member(config, model, splits, NoJournal())


def plain_variants(backbone, readout):
    """Return runs that differ in all that a pack may mix."""
    base = run_config(backbone, "prompt-tuning", readout, steps=6, learning_rate=0.03)
    residual = run_config(backbone, "residual", readout, steps=6, learning_rate=0.01)
    return [
        base,
        base.model_copy(update={"seed": 1}),
        residual.model_copy(update={"seed": 2}),
        run_config(backbone, "split", readout, steps=9, batch_size=2, accumulation_steps=2),
        run_config(backbone, "prompt-tuning", readout, steps=4, optimizer="adafactor"),
    ]


def reaching_variants(backbone, readout):
    """Return runs that give attention different things, or nothing."""
    methods = ("prompt-tuning", "adap-len", "p-tuning-v2", "residual-deep-pool-len")
    configs = [run_config(backbone, m, readout, steps=5, learning_rate=0.02) for m in methods]
    short = configs[2].model_dump(mode="json")
    short["prompt"] |= {"length": 2, "depth": {"kind": "every-layer", "from_layer": 1}}
    return [*configs, RunConfig.model_validate(short)]


@pytest.mark.parametrize("kind", READOUT)
@pytest.mark.parametrize("is_linear", [True, False])
@pytest.mark.parametrize("build_variants", [plain_variants, reaching_variants])
def test_a_pack_equals_single_runs(tiny, task, kind, is_linear, build_variants):
    backbone = tiny(kind)
    configs = build_variants(backbone, "linear" if is_linear else READOUT[kind])
    alone = [member(config, backbone, task) for config in configs]
    for single in alone:
        train_pack(backbone, [single])
    together = [member(config, backbone, task) for config in configs]
    first = [m.model.bake() for m in together]
    train_pack(backbone, together)
    for single, packed, start in zip(alone, together, first, strict=True):
        assert packed.counters.step == single.counters.step == packed.plan.total_steps
        assert not torch.equal(packed.model.bake(), start)
        torch.testing.assert_close(packed.model.bake(), single.model.bake(), atol=1e-4, rtol=1e-4)


def test_a_diverging_run_leaves_the_others_alone(tiny, task):
    backbone = tiny("bert")
    calm = run_config(backbone, "prompt-tuning", "linear", steps=5)
    wild = run_config(
        backbone, "prompt-tuning", "linear", steps=5, learning_rate=1e30, clip_norm=None
    )
    alone = member(calm, backbone, task)
    train_pack(backbone, [alone])
    pair = [member(wild, backbone, task), member(calm, backbone, task)]
    train_pack(backbone, pair)
    divergence = pair[0].counters.divergence
    assert 1 < divergence["step"] <= 5
    assert not math.isfinite(float(divergence["loss"]))
    assert divergence["learning_rate"] == 1e30
    torch.testing.assert_close(pair[1].model.bake(), alone.model.bake(), atol=1e-4, rtol=1e-4)


def test_an_update_sees_the_gradient_of_its_whole_batch(tiny, task):
    """Length-sorted micro-batches and accumulation give the plain batch's gradient."""
    backbone = tiny("bert")
    config = run_config(backbone, "residual", "linear", batch_size=3, accumulation_steps=3)
    run = member(config, backbone, task)
    parts = run.parts(backbone)
    assert len(parts) > 1
    for part, weight in parts:
        loss = run.model.readout.loss(score(backbone, [part])[0], part.batch)
        (loss.sum() * weight).backward()
    cut = [p.grad.clone() for p in run.model.parameters]
    run.optimizer.zero_grad()
    batch = collate(run.train["custom"].encoded, backbone.tokenizer.pad_token_id)
    scores = score(backbone, [Part(run.model.prompt, run.model.readout, batch)])[0]
    run.model.readout.loss(scores, batch).mean().backward()
    for got, parameter in zip(cut, run.model.parameters, strict=True):
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
        train_pack(backbone, [run])
        assert torch.equal(before, torch.random.get_rng_state())
        results.append(run.model.prompt.bake())
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
            places = torch.cat(part.choices.chosen["position"]).tolist()
            splits |= {i.ids: s for i, s in zip(part.batch.items, places, strict=True)}
        chosen.append(splits)
    assert len(set(chosen[0].values())) > 1
    assert chosen[0] == chosen[1] == chosen[2]
