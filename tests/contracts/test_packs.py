"""A pack of runs trains each as it would train alone."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from contracts.conftest import covering, parts_of, run_config
from softprompts.backbones.loading import load_backbone
from softprompts.encoding.batch import collate
from softprompts.errors import MemoryShortageError, SoftPromptsWarning
from softprompts.machine_memory import is_out_of_memory
from softprompts.recipes.schema import RunConfig
from softprompts.seeding import generator
from softprompts.training import evaluation, footprint, pack
from softprompts.training.building import build_model
from softprompts.training.execution import encode_splits, make_member
from softprompts.training.forward import Part, score
from softprompts.training.journal import NoJournal
from softprompts.training.pack import Room, cut, train_pack
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
        run_config(
            backbone, "prompt-tuning", readout, steps=4, optimizer="adafactor", average="tail"
        ),
    ]


def reaching_variants(backbone, readout):
    """Return runs that give attention different things, or nothing."""
    methods = ("prompt-tuning", "adap-len", "p-tuning-v2", "residual-deep-pool-len")
    configs = [run_config(backbone, m, readout, steps=5, learning_rate=0.02) for m in methods]
    short = configs[2].model_dump(mode="json")
    short["prompt"] |= {"length": 2, "depth": {"kind": "every-layer", "from_layer": 1}}
    return [*configs, RunConfig.model_validate(short)]


@pytest.mark.parametrize(
    ("kind", "is_linear", "build_variants"),
    covering(list(product(READOUT, (True, False), (plain_variants, reaching_variants)))),
)
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
    parts = parts_of(run, backbone)
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
        for part, _ in parts_of(run, backbone):
            score(backbone, [part])
            places = torch.cat(part.choices.chosen["position"]).tolist()
            splits |= {i.ids: s for i, s in zip(part.batch.items, places, strict=True)}
        chosen.append(splits)
    assert len(set(chosen[0].values())) > 1
    assert chosen[0] == chosen[1] == chosen[2]


def eight(backbone):
    """Return runs that differ in all that a study may vary."""
    plain = {"learning_rate": 0.01, "steps": 50, "batch_size": 3}

    def run(method="prompt-tuning", seed=0, prompt=None, regularizers=(), **training):
        config = run_config(backbone, method, "linear", **{**plain, **training})
        data = config.model_dump(mode="json")
        data["prompt"] |= prompt or {}
        data["regularizers"] = list(regularizers)
        return RunConfig.model_validate({**data, "seed": seed})

    noise = {"kind": "ptp", "perturbation": "gaussian-noise"}
    return [
        run(),
        run(seed=1),
        run(learning_rate=0.003),
        run(prompt={"initializer": {"kind": "normal"}}),
        run("residual", seed=2, prompt={"rows": {"kind": "residual", "dropout": 0.2}}),
        run("adap-ins-vec-pos", seed=3, batch_size=2, accumulation_steps=2),
        run(regularizers=[{**noise, "weight": 0.5}]),
        run("p-tuning-v2", regularizers=[{**noise, "weight": 1.0}], clip_norm=0.1),
    ]


def assert_eight_equal_alone(backbone, task, tolerance):
    """Check that runs in a pack end where each ends by itself, and that all of them move."""
    configs = eight(backbone)
    few = replace(task, train=task.train[2:7])
    tasks = [few if number in (1, 4) else task for number in range(8)]
    alone = [member(config, backbone, own) for config, own in zip(configs, tasks, strict=True)]
    for single in alone:
        train_pack(backbone, [single])
    together = [member(config, backbone, own) for config, own in zip(configs, tasks, strict=True)]
    first = [{k: v.clone() for k, v in run.model.state().items()} for run in together]
    train_pack(backbone, together)
    for single, packed, start in zip(alone, together, first, strict=True):
        assert packed.counters.step == single.counters.step == 50
        assert packed.counters.examples == single.counters.examples
        found, expected = packed.model.state(), single.model.state()
        assert any(not torch.equal(found[name], start[name]) for name in found)
        for name, value in expected.items():
            assert value.dtype == backbone.dtype, name
            torch.testing.assert_close(found[name], value, atol=tolerance, rtol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_pack_of_eight_is_eight_single_runs_after_fifty_steps(tiny, task, kind):
    """Presets, seeds, rates, initializers, few-shot samples and weights of regularizers."""
    assert_eight_equal_alone(tiny(kind), task, 1e-4)


@pytest.fixture
def load_wide(monkeypatch):
    """Have float64 wherever float32 is made, and return a function that loads a backbone in it."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)

    def load(name):
        backbone = load_backbone(str(name), attention="sdpa")
        backbone.model.double()
        backbone.dtype = torch.float64
        return backbone

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield load
    torch.set_default_dtype(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_pack_of_eight_differs_by_rounding_alone(load_wide, backbone_folder, task, kind):
    """What is left of a difference in float32 is far less in float64."""
    assert_eight_equal_alone(load_wide(backbone_folder(kind)), task, 1e-9)


@pytest.mark.slow
def test_a_pack_of_eight_on_minilm_differs_by_rounding_alone(load_wide, task):
    assert_eight_equal_alone(load_wide("minilm"), task, 1e-8)


def test_examples_of_like_length_meet_whosever_they_are(tiny, task):
    backbone = tiny("bert")
    configs = [
        run_config(backbone, method, "linear", batch_size=4)
        for method in ("prompt-tuning", "residual", "adap-pos")
    ]
    runs = [member(config, backbone, task) for config in configs]
    drawn = [run.draw() for run in runs]
    widths = sorted((one.width for taken in drawn for one in taken), reverse=True)
    room = Room(most_positions=4 * widths[0])
    groups = [list(zip(*group, strict=True)) for group in cut(runs, backbone, room)]
    found, places = [], [[] for _ in runs]
    for shares in groups:
        own = [(run, share.part.batch.attention_mask.sum(dim=1) + 4) for run, share in shares]
        lengths = torch.cat([lengths for _, lengths in own])
        found.append(sorted(lengths.tolist(), reverse=True))
        assert len(lengths) * max(lengths) <= 4 * widths[0]
        for run, share in shares:
            places[run] += share.part.draws.places.tolist()
    assert [width for group in found for width in group] == widths
    assert any(len(shares) == 3 for shares in groups)
    assert [sorted(own) for own in places] == [list(range(len(taken))) for taken in drawn]


def test_what_onednn_says_without_memory_is_a_shortage():
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(RuntimeError("could not create a tensor"))


def test_dropout_does_not_depend_on_the_cut_or_on_others(tiny, task):
    backbone = tiny("bert")
    masks = []
    for size, accumulation in ((9, 1), (3, 3)):
        config = run_config(
            backbone, "residual", "linear", batch_size=size, accumulation_steps=accumulation
        )
        data = config.model_dump(mode="json")
        data["prompt"]["rows"]["dropout"] = 0.5
        run = member(RunConfig.model_validate(data), backbone, task)
        masks += [
            run.model.prompt.pool(1, None, part.draws)[0] for part, _ in parts_of(run, backbone)
        ]
    assert len(masks) > 2
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert not torch.equal(run.model.prompt.pool(1, None, None)[0], masks[0])


class Allocator:
    """An allocator that holds no micro-batch with more than some examples."""

    def __init__(self, monkeypatch, most, error):
        self.most, self.error, self.sizes = most, error, []
        self.real = pack.accumulate
        monkeypatch.setattr(pack, "accumulate", self)

    def __call__(self, backbone, shares):
        size = sum(share.part.batch.size for share in shares)
        found = self.real(backbone, shares)  # memory runs out when gradients are there already
        if size > self.most:
            raise self.error
        self.sizes.append(size)
        return found


ERRORS = {
    "cpu": RuntimeError("[alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_update_that_memory_does_not_hold_is_done_in_halves(tiny, task, monkeypatch, name):
    backbone = tiny("bert")
    configs = [c.model_copy(update={"seed": c.seed}) for c in eight(backbone)[4:7]]
    whole = [member(config, backbone, task) for config in configs]
    pack.update_pack(backbone, whole)
    allocator = Allocator(monkeypatch, 3, ERRORS[name])
    halved, room = [member(config, backbone, task) for config in configs], Room()
    with pytest.warns(SoftPromptsWarning, match="memory does not hold a micro-batch of") as said:
        pack.update_pack(backbone, halved, room)
    assert len(said) == len({str(one.message) for one in said})
    assert 0 < max(allocator.sizes) <= 3
    assert sum(run.counters.examples for run in halved) == 3 + 4 + 3
    for one, other in zip(halved, whole, strict=True):
        assert one.counters.most_positions == room.most_positions
        assert other.counters.most_positions is None
        for found, expected in zip(one.model.parameters, other.model.parameters, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    num_readings = len(allocator.sizes)
    pack.update_pack(backbone, halved, room)  # the bound stays: no warning
    assert len(allocator.sizes) > num_readings


def test_one_example_that_memory_does_not_hold_is_an_error(tiny, task, monkeypatch):
    backbone = tiny("bert")
    run = member(run_config(backbone, "prompt-tuning", "linear"), backbone, task)
    Allocator(monkeypatch, 0, ERRORS["cuda"])
    text = r"one example of \d+ positions must fit .* CUDA out of memory. Tried to allocate 2 GiB\."
    with (
        pytest.warns(SoftPromptsWarning, match="memory does not hold a micro-batch of"),
        pytest.raises(MemoryShortageError, match=text),
    ):
        train_pack(backbone, [run])
    assert run.counters.step == 0


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny, task, monkeypatch):
    backbone = tiny("bert")
    run = member(run_config(backbone, "prompt-tuning", "linear"), backbone, task)
    Allocator(monkeypatch, 0, RuntimeError("shapes 3 and 4 differ"))
    with pytest.raises(RuntimeError, match="shapes 3 and 4 differ"):
        train_pack(backbone, [run])


def test_a_split_that_memory_does_not_hold_is_scored_in_halves(tiny, task, monkeypatch):
    backbone = tiny("bert")
    run = member(run_config(backbone, "prompt-tuning", "linear"), backbone, task)
    scorer = (run.model.prompt, run.model.readout, run.train["custom"].encoded)
    expected = evaluation.score_examples(backbone, *scorer)
    real = evaluation.score

    def score(backbone, parts):
        if parts[0].batch.size > 2:
            raise ERRORS["cpu"]
        return real(backbone, parts)

    monkeypatch.setattr(evaluation, "score", score)
    with pytest.warns(SoftPromptsWarning, match=r"does not hold \d examples to score"):
        found = evaluation.score_examples(backbone, *scorer)
    for one, other in zip(found[0], expected[0], strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert found[1] == pytest.approx(expected[1], abs=1e-5)

    def never(backbone, parts):
        raise ERRORS["cpu"]

    monkeypatch.setattr(evaluation, "score", never)
    with (
        pytest.warns(SoftPromptsWarning, match="examples to score"),
        pytest.raises(MemoryShortageError, match="one example must fit in memory to be scored"),
    ):
        evaluation.score_examples(backbone, *scorer)


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2", "adap-ins-vec-pos"])
def test_the_estimate_is_what_tensors_take(tiny, task, method):
    """Measured on one and two examples, it says what six of the longest take."""
    backbone = tiny("bert")
    run = member(run_config(backbone, method, "linear", batch_size=6), backbone, task)
    before = {name: value.clone() for name, value in run.model.state().items()}
    found = footprint.measure_footprint(run)
    assert all(p.grad is None for p in run.model.parameters)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state().items())
    run.draw()
    peak = footprint._peak(backbone, lambda: footprint._read(run, [run.longest()] * 6))
    estimate = footprint.estimate_bytes(backbone, [found])
    own = estimate - footprint.weight_bytes(backbone) - found.state_bytes
    assert own == pytest.approx(peak, rel=0.2)  # a row of inputs is rounded up to 64 places
    assert footprint.estimate_bytes(backbone, [found] * 3) > 2 * own
    assert footprint.estimate_bytes(backbone, [found] * 3, 1) < estimate + 3 * found.state_bytes


def test_micro_batches_of_a_pack_are_bound_by_the_machines_memory(tiny, task, monkeypatch):
    backbone = tiny("bert")
    configs = [run_config(backbone, "prompt-tuning", "linear", batch_size=9) for _ in range(2)]
    runs = [member(config, backbone, task) for config in configs]
    assert footprint.bound_positions(backbone, runs) is None
    one = footprint.measure_footprint(runs[0])
    fixed = footprint.estimate_bytes(backbone, [one, one], 0)
    budget = int(fixed + 100.5 * one.position_bytes)
    monkeypatch.setattr(footprint, "budget_bytes", lambda device: budget)
    assert footprint.bound_positions(backbone, runs) == 100
    monkeypatch.setattr(footprint, "free_bytes", lambda device: 1000)
    with pytest.warns(SoftPromptsWarning, match="estimated to take .* but only 0 MB are free"):
        footprint.bound_positions(backbone, runs)


def test_the_machines_memory_is_that_of_the_system():
    device = torch.device("cpu")
    total = footprint.total_bytes(device)
    assert 0 < footprint.free_bytes(device) <= total
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert total <= int(lines["MemTotal"].split()[0]) * 1024
    assert footprint.budget_bytes(device) == total // 2


def test_the_time_of_an_update_is_shared_by_its_runs(tiny, task, monkeypatch):
    backbone = tiny("bert")
    runs = [
        member(run_config(backbone, "prompt-tuning", "linear", steps=steps), backbone, task)
        for steps in (1, 2, 2)
    ]
    ticks = iter(range(10_000))
    monkeypatch.setattr(pack.time, "perf_counter", lambda: float(next(ticks)))
    for _ in range(2):  # three runs, then two: an update takes one tick
        pack.update_pack(backbone, [run for run in runs if not run.is_done])
    shares = [run.counters.training_seconds for run in runs]
    assert shares == pytest.approx([1 / 3, 1 / 3 + 1 / 2, 1 / 3 + 1 / 2])
    assert [run.counters.seconds for run in runs] == shares
