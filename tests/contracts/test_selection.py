"""Learned positions and pools against brute force, and their identities."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import softprompts as sp
from backbones import KINDS
from contracts.conftest import covering, run_config
from softprompts.errors import DataError, PromptError, RecipeError
from softprompts.prompts.draws import Draws
from softprompts.prompts.initializers.vocabulary import VocabularyInitializer
from softprompts.prompts.pools.attention import AttentionPool
from softprompts.prompts.positions.base import Edges, anchors
from softprompts.prompts.positions.instance import InstancePosition
from softprompts.prompts.positions.task import TaskPosition
from softprompts.prompts.prompt import FixedPosition, Prompt
from softprompts.prompts.rows.plain import PlainRows
from softprompts.prompts.selection import select
from softprompts.prompts.splice import splice
from softprompts.prompts.split_gradient import tie
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.presets import METHODS
from softprompts.training import features
from softprompts.training.building import build_model
from softprompts.training.evaluation import score_examples
from softprompts.training.execution import execute
from softprompts.training.progress import Progress
from softprompts.training.temperatures import constant, exponential

LENGTH, HIDDEN, TOKENS = 4, 5, 7


def draws(batch, seed=0, step=0, places=None, total=None, temperature=0.7):
    places = torch.arange(batch) if places is None else torch.tensor(places)
    return Draws(seed, step, 0, places, total or batch, temperature)


def layout(side):
    """Return a double batch of three inputs with edges, padded on a side."""
    generator = torch.Generator().manual_seed(5)
    embeddings = torch.randn(3, TOKENS, HIDDEN, dtype=torch.float64, generator=generator)
    sizes = (7, 5, 3)
    mask = torch.zeros(3, TOKENS, dtype=torch.long)
    first = []
    for row, size in enumerate(sizes):
        begin = 0 if side == "right" else TOKENS - size
        mask[row, begin : begin + size] = 1
        first.append(begin)
    start = torch.tensor(first) + torch.tensor([1, 0, 1])
    end = torch.tensor(first) + torch.tensor(sizes) - torch.tensor([1, 0, 2])
    return embeddings, mask, start, end


def loss_of(embeddings, mask):
    """Mix all positions in a way that is not linear and tells places apart."""
    size = embeddings.shape[1]
    generator = torch.Generator().manual_seed(9)
    mixing = torch.randn(size, size, dtype=torch.float64, generator=generator)
    inner = torch.randn(HIDDEN, HIDDEN, dtype=torch.float64, generator=generator)
    states = torch.tanh(mixing @ (embeddings @ inner * mask[..., None]))
    return (states * torch.arange(1.0, size + 1, dtype=torch.float64)[:, None]).sin().sum()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("seed", range(5))
def test_gradient_of_every_split_equals_brute_force(side, seed):
    tokens, mask, start, end = layout(side)
    segments = torch.zeros_like(mask)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, LENGTH + 1, dtype=torch.float64, generator=generator)
    rows = torch.randn(3, LENGTH, HIDDEN, dtype=torch.float64, generator=generator)

    def run(is_brute):
        leaf_logits = logits.clone().requires_grad_()
        leaf_rows = rows.clone().requires_grad_()
        leaf_tokens = tokens.clone().requires_grad_()
        weights = select(leaf_logits, draws(3, seed), "position")
        weights.retain_grad()
        if is_brute:
            arrangements = []
            for split in range(LENGTH + 1):
                places = anchors(torch.full((3,), split), LENGTH, start, end)
                arrangements.append(
                    splice(leaf_tokens, mask, segments, leaf_rows, places).embeddings
                )
            stacked = torch.stack(arrangements, dim=1)  # (3, splits, places, hidden)
            embeddings = (weights[..., None, None] * stacked).sum(dim=1)
            keep = splice(tokens, mask, segments, rows, anchors(start * 0, LENGTH, start, end))
        else:
            split = weights.argmax(dim=1)
            places = anchors(split, LENGTH, start, end)
            keep = splice(leaf_tokens, mask, segments, leaf_rows, places)
            edges = (start, end)
            tied = tie(keep.embeddings, weights, leaf_tokens, mask, leaf_rows, edges)
            keep = replace(keep, embeddings=tied)
            embeddings = keep.embeddings
        loss = loss_of(embeddings, keep.attention_mask)
        loss.backward()
        return loss, weights.grad, leaf_logits.grad, leaf_rows.grad, leaf_tokens.grad

    for fast, brute in zip(run(False), run(True), strict=True):
        assert fast.abs().max() > 1e-3
        torch.testing.assert_close(fast, brute, atol=1e-9, rtol=1e-9)


def test_noise_follows_the_logits():
    """Gumbel noise makes the hard choice a draw from the softmax of the logits."""
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    count = 20000
    chosen = select(logits.expand(count, -1), draws(count, temperature=0.3), "position")
    shares = chosen.mean(dim=0)
    torch.testing.assert_close(shares, logits.softmax(0), atol=0.01, rtol=0)


def test_evaluation_takes_the_largest_logit_without_noise():
    logits = torch.tensor([[0.0, 1.0, 0.9], [2.0, 1.0, 0.0]])
    for _ in range(3):
        assert select(logits, None, "position").argmax(dim=1).tolist() == [1, 0]


def test_noise_belongs_to_the_example_not_to_the_micro_batch():
    logits = torch.zeros(6, 5)
    whole = select(logits, draws(6), "position")
    first = select(logits[:2], draws(2, places=[4, 1], total=6), "position")
    assert torch.equal(first, whole[[4, 1]])
    assert not torch.equal(whole, select(logits, draws(6, step=1), "position"))
    assert not torch.equal(whole, select(logits, draws(6, seed=1), "position"))


def test_a_lower_temperature_sharpens_the_gradient_side():
    logits = torch.zeros(1, 3, requires_grad=True)
    norms = []
    for temperature in (4.0, 1.0):
        logits.grad = None
        weights = select(logits, draws(1, temperature=temperature), "position")
        (weights * torch.tensor([[1.0, 2.0, 4.0]])).sum().backward()
        norms.append(float(logits.grad.norm()))
    assert norms[0] < norms[1]


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("split", [0, 2, 4])
@pytest.mark.parametrize("is_instance", [True, False])
def test_a_selector_fixed_at_a_split_is_that_fixed_split(tiny, task, kind, split, is_instance):
    backbone = tiny(kind)
    model = build_model(run_config(backbone, "prompt-tuning", "linear"), backbone, task.format)
    rows = model.prompt.pool.rows
    width = backbone.hidden_size
    if is_instance:
        position = InstancePosition(4, width, torch.Generator().manual_seed(0))
        logits = position.bias
    else:
        position = TaskPosition(4, width, torch.Generator())
        logits = position.logits
    with torch.no_grad():
        logits[split] = 1e4
    learned, fixed = Prompt(rows, position), Prompt(rows, FixedPosition(4, split=split))
    encoded = [model.readout.encode(row) for row in task.train]
    found, _ = score_examples(backbone, learned, model.readout, encoded)
    expected, _ = score_examples(backbone, fixed, model.readout, encoded)
    assert found == expected


def test_a_pool_of_one_is_its_set():
    rows = PlainRows(torch.randn(3, HIDDEN), torch.Generator())
    pool = AttentionPool([rows], 6, torch.Generator().manual_seed(0), size=1)
    found, weights = pool(2, torch.randn(2, 6), None)
    assert torch.equal(found, rows().expand(2, -1, -1))
    assert torch.equal(weights, torch.ones(2, 1))


def test_a_pool_mixes_by_the_softmax_of_a_linear_map():
    generator = torch.Generator().manual_seed(2)
    sets = [PlainRows(torch.randn(3, HIDDEN, generator=generator), generator) for _ in range(4)]
    pool = AttentionPool(sets, 6, generator)
    with torch.no_grad():
        pool.weight.normal_(generator=generator)
    instances = torch.randn(2, 6, generator=generator)
    found, weights = pool(2, instances, None)
    for row in range(2):
        scaled = instances[row] / instances[row].square().mean().sqrt()
        beta = (pool.weight @ scaled + pool.bias).softmax(0)
        torch.testing.assert_close(weights[row], beta)
        expected = sum(b * rows() for b, rows in zip(beta, sets, strict=True))
        torch.testing.assert_close(found[row], expected)
    assert pool.bake().shape == (4, 3, HIDDEN)


def test_a_pool_with_tanh_weighs_as_the_authors_code():
    """Their selector is a linear map, a tanh and a softmax; logits beyond it are cut."""
    generator = torch.Generator().manual_seed(3)
    sets = [PlainRows(torch.randn(3, HIDDEN, generator=generator), generator) for _ in range(4)]
    pool = AttentionPool(sets, 6, generator, has_tanh=True)
    theirs = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Softmax(dim=1))
    with torch.no_grad():
        pool.weight.normal_(generator=generator).mul_(5)
        theirs[0].weight.copy_(pool.weight)
        theirs[0].bias.copy_(pool.bias)
    instances = torch.randn(5, 6, generator=generator)
    scaled = instances / instances.square().mean(dim=1, keepdim=True).sqrt()
    found, weights = pool(5, instances, None)
    torch.testing.assert_close(weights, theirs(scaled))
    mixed = (theirs(scaled) @ torch.stack([one() for one in sets]).flatten(1)).view(5, 3, HIDDEN)
    torch.testing.assert_close(found, mixed)
    assert (weights.max(dim=1).values / weights.min(dim=1).values).max() <= math.exp(2) + 1e-4


def edges_of(count):
    """Return the places of inputs of four tokens."""
    return Edges(
        torch.zeros(count, dtype=torch.long), torch.full((count,), 4), torch.empty(count, 0)
    )


def test_what_learned_parts_refuse():
    generator = torch.Generator()
    rows = PlainRows(torch.zeros(2, HIDDEN), generator)
    with pytest.raises(PromptError, match="at least 1 for a learned position, but is 0"):
        TaskPosition(0, 6, generator)
    with pytest.raises(PromptError, match="at least 1 for a learned position, but is 0"):
        InstancePosition(0, 6, generator)
    with pytest.raises(PromptError, match="instance vectors must be given to a position"):
        InstancePosition(2, 6, generator)(edges_of(1), None, None)
    with pytest.raises(PromptError, match="instance vectors must be given to a pool"):
        AttentionPool([rows], 6, generator, size=1)(1, None, None)
    with pytest.raises(PromptError, match=r"`prompt.pool.size` must be 1, but is 3"):
        AttentionPool([rows], 6, generator, size=3)


def test_relu_is_there_for_parity():
    position = InstancePosition(3, 6, torch.Generator().manual_seed(0), has_relu=True)
    with torch.no_grad():
        position.bias.fill_(-50.0)
        position.bias[2] = -49.0
    assert position(edges_of(1), torch.randn(1, 6), None).weights.argmax(dim=1).tolist() == [
        0
    ]  # all logits are 0
    position.has_relu = False
    assert position(edges_of(1), torch.randn(1, 6), None).weights.argmax(dim=1).tolist() == [2]


@pytest.mark.parametrize("kind", ["bert", "albert", "modernbert", "gpt2", "t5", "bart"])
def test_instance_vectors_are_the_masked_mean_of_the_bare_backbone(tiny, task, kind):
    backbone = tiny(kind)
    model = build_model(run_config(backbone, "adap-ins-pos", "linear"), backbone, task.format)
    from softprompts.encoding.batch import collate

    encoded = [model.readout.encode(row) for row in task.train]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    found = features.instance_vectors(backbone, batch)
    with torch.no_grad():
        states = backbone.hidden(backbone.embed(batch.ids), batch.attention_mask, batch.segments)
    mask = batch.attention_mask[..., None]
    expected = (states * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_the_label_being_scored_does_not_choose_the_prompt(tiny, task):
    backbone = tiny("gpt2")
    model = build_model(run_config(backbone, "adap-ins-vec-pos", "text"), backbone, task.format)
    from softprompts.encoding.batch import collate

    encoded = [model.readout.encode(task.train[0])]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    assert len(set(batch.continuations.tolist())) > 1
    vectors = features.instance_vectors(backbone, batch)
    assert len(vectors) > 1
    for a, b in itertools.pairwise(vectors):
        assert torch.equal(a, b)


def test_temperatures():
    assert exponential(0, 100) == 1.0
    assert exponential(100, 100) == exponential(1000, 100) == pytest.approx(0.5)
    assert exponential(10, 100, start=4.0, floor=1.0, steps=20) == pytest.approx(2.0)
    assert constant(7, 100, start=0.3) == 0.3


def test_sets_of_a_pool_must_start_apart(tiny, task):
    backbone = tiny("bert")
    data = run_config(backbone, "adap-ins-vec", "linear").model_dump(mode="json")
    data["prompt"]["initializer"] = {
        "kind": "text",
        "text": "good bread and good bread and good bread",
    }
    with pytest.raises(PromptError, match=r"must start the sets of a pool apart.*but is 'text'"):
        build_model(sp.RunConfig.model_validate(data), backbone, task.format)


def test_a_prompt_beyond_the_context_takes_no_memory(tiny, task, monkeypatch):
    def started(*given: Any) -> None:
        raise AssertionError("rows were made")

    monkeypatch.setattr(VocabularyInitializer, "__call__", started)
    backbone = tiny("bert")
    data = run_config(backbone, "prompt-tuning", "linear").model_dump(mode="json")
    data["prompt"]["length"] = 65536
    with pytest.raises(DataError, match=r"must leave at least 8 of the \d+ .* but is 65536"):
        build_model(sp.RunConfig.model_validate(data), backbone, task.format)


def test_choices_are_logged(tiny, task, tmp_path):
    backbone = tiny("bert")
    config = run_config(backbone, "adap-ins-vec-pos", "linear", steps=4)
    outcome = execute(config, backbone, task, folder=tmp_path / "run")
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    for step, line in enumerate(lines):
        assert len(line["position"]["counts"]) == 5
        assert sum(line["position"]["counts"]) == (4, 4, 1, 4)[step]
        assert 0 < line["position"]["entropy"] <= math.log(5) + 1e-6
        assert sum(line["pool"]["weights"]) == pytest.approx(1)
        assert line["temperature"] == pytest.approx(0.5 ** (step / 4))
    choices = outcome.result["choices"]
    assert sum(choices["position"]["counts"]) == len(task.validation)
    assert set(choices["pool"]["by_class"]) == set(task.format.labels)
    for weights in choices["pool"]["by_class"].values():
        assert sum(weights) == pytest.approx(1)


class Stop(Progress):
    """Ends a run like a crash would, at a step."""

    def __init__(self, step):
        self.step = step

    def update(self, step, total_steps):
        if step == self.step:
            raise KeyboardInterrupt


def parts_of_method(cell):
    """Return the parts of a method, of which `covering` wants each once."""
    preset = METHODS[cell[1]]
    return (preset.rows, preset.pool, preset.position, preset.active_length, preset.depth)


def slow(*cell):
    """Return a cell that is looked at with the slow tests."""
    return pytest.param(*cell, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *covering([("bert", m) for m, p in METHODS.items() if p.is_trained], 1, parts_of_method),
        ("t5", "adap-ins-vec-pos"),
        ("gpt2", "residual-deep-pool-len"),
        *(slow(kind, "adap-ins-vec-pos") for kind in KINDS if kind not in ("bert", "t5")),
        *(
            slow(k, "residual-deep-pool-len")
            for k in KINDS
            if k not in ("bert", "deberta-v2", "gpt2")
        ),
    ],
)
def test_interrupted_and_resumed_is_uninterrupted(tiny, task, tmp_path, kind, method):
    backbone = tiny(kind)
    config = run_config(
        backbone,
        method,
        "linear",
        steps=6,
        selection="held-out",
        held_out_fraction=0.4,
        num_evaluations=2,
        checkpoint_every_steps=2,
    )
    whole = tmp_path / "whole"
    execute(config, backbone, task, folder=whole)
    halves = tmp_path / "halves"
    for step in (3, 5):  # behind a checkpoint, before and after something was selected
        with pytest.raises(KeyboardInterrupt):
            execute(config, backbone, task, folder=halves, progress=Stop(step))
    execute(config, backbone, task, folder=halves)
    for name in ("prompt.safetensors", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes()


def test_the_temperature_of_nothing_is_refused():
    with pytest.raises(RecipeError, match=r"`training.temperature` must be left out with a fixed"):
        parse_run(
            {
                "backbone": {"name": "minilm"},
                "task": {"name": "bundled/sentiment"},
                "training": {"temperature": {"start": 2.0}},
            }
        )
