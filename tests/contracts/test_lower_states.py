"""Layers below the first one that reads rows run once per input: as if they ran again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from backbones import KINDS
from contracts.conftest import run_config
from contracts.test_input_keys import assert_same, part_of, results
from reads import forget_kept, ways
from softprompts.fast import reader
from softprompts.fast.lower_states import can_skip_layers
from softprompts.fast.reader import Ways
from softprompts.fast.shortcuts import Shortcuts
from softprompts.recipes.schema import RunConfig
from softprompts.training.forward import score

HANDS_ON_MORE = ("t5", "deberta-v2")
SKIPPED = [kind for kind in KINDS if kind not in HANDS_ON_MORE]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Let each test begin with nothing kept."""
    forget_kept()


@pytest.fixture
def runs(monkeypatch):
    """Return how many layers ran in each forward for scores."""
    found: list[int] = []
    true = Ways.read_joint

    def spy(self, joint, below=()):
        backbone = self.backbone
        count = 0

        def note(*_):
            nonlocal count
            count += 1

        handles = [
            module.register_forward_hook(note)
            for module in backbone.model.modules()
            if "attention" in type(module).__name__.lower() and hasattr(module, "config")
        ]
        result = true(self, joint, below)
        for handle in handles:
            handle.remove()
        found.append(count)
        return result

    monkeypatch.setattr(Ways, "read_joint", spy)
    return found


def config_of(backbone, readout="linear", **prompt):
    """Return a run whose rows are read from the second layer on."""
    data = run_config(backbone, "p-tuning-v2", readout).model_dump(mode="json")
    data["prompt"] |= {"depth": {"kind": "every-layer", "from_layer": 1}} | prompt
    return RunConfig.model_validate(data)


def whole(monkeypatch, call):
    """Return what a call returns where no layer is left out."""
    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_below", lambda *given: None)
        return call()


@pytest.mark.parametrize("kind", SKIPPED)
@pytest.mark.parametrize("length", [None, {"kind": "task", "start": 2}])
def test_scores_and_gradients_are_those_of_all_layers(tiny, task, kind, length, monkeypatch, runs):
    backbone = tiny(kind)
    more = {} if length is None else {"active_length": length}
    readouts = ["linear"] if backbone.family == "encoder" else ["linear", "text"]
    for readout in readouts:
        model, part = part_of(backbone, task, config_of(backbone, readout, **more))
        expected = whole(monkeypatch, lambda m=model, p=part: results(backbone, [m], [p]))
        for _ in range(2):
            found = results(backbone, [model], [part])
            assert 0 < runs[-1] < runs[0]
            assert_same(found, expected)
        runs.clear()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_nothing_is_recorded_below_the_first_layer_with_rows(tiny, task, kind, monkeypatch):
    backbone = tiny(kind)
    monkeypatch.setitem(backbone.__dict__, "shortcuts", Shortcuts())  # one attention a layer
    model, part = part_of(backbone, task, config_of(backbone))
    graph = [score(backbone, [part])[0].grad_fn]
    seen = set()
    while graph:
        node = graph.pop()
        if node is not None and node not in seen:
            seen.add(node)
            graph += [one for one, _ in node.next_functions]
    leaves = [node.variable for node in seen if hasattr(node, "variable")]
    assert {id(one) for one in leaves} == {id(p) for p in model.parameters}
    names = [type(node).__name__ for node in seen]
    attentions = [name for name in names if "Attention" in name or "Softmax" in name]
    assert len(attentions) == 1  # of two layers


def test_runs_that_skip_other_layers_go_into_other_forwards(tiny, task, monkeypatch, runs):
    backbone = tiny("bert")
    configs = [
        config_of(backbone),
        config_of(backbone, depth="every-layer"),
        config_of(backbone, length=2),
        config_of(backbone, depth="input"),
    ]
    rows = [slice(0, 4), slice(1, 3), slice(3, 9), slice(0, 2)]
    made = [part_of(backbone, task, *given) for given in zip(configs, rows, strict=True)]
    plain, part = part_of(backbone, task, configs[0])
    made.append((plain, replace(part, embeddings=backbone.embed(part.batch.ids).flip(2))))
    alone = []
    for model, part in made:
        alone.append(whole(monkeypatch, lambda m=model, p=part: results(backbone, [m], [p])))
    runs.clear()
    together = results(backbone, [model for model, _ in made], [part for _, part in made])
    assert len(runs) == 2
    assert_same(together[: len(made)], [found[0] for found in alone])
    assert_same(together[len(made) :], [one for found in alone for one in found[1:]], 1e-4)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_what_is_kept_has_the_bits_of_what_is_read_now(tiny, task, kind):
    backbone = tiny(kind)
    model, part = part_of(backbone, task, config_of(backbone))
    cold = results(backbone, [model], [part])
    number = ways(backbone).kept.num_read
    assert number == len(part.batch.items)
    assert all(map(torch.equal, results(backbone, [model], [part]), cold))
    assert ways(backbone).kept.num_read == number
    forget_kept()
    results(backbone, [model], [part_of(backbone, task, config_of(backbone), slice(2, 9))[1]])
    assert all(map(torch.equal, results(backbone, [model], [part]), cold))


def test_other_tokens_segments_and_numbers_of_rows_have_other_states(tiny, task, monkeypatch):
    for kind, change in (("bert", "ids"), ("bert", "segments"), ("gpt2", "length")):
        backbone = tiny(kind)
        part = part_of(backbone, task, config_of(backbone))[1]
        score(backbone, [part])
        if change == "length":
            part = part_of(backbone, task, config_of(backbone, length=3))[1]
        else:
            values = getattr(part.batch, change).clone()
            values[:, 1] = 1 - values[:, 1] if change == "segments" else 77
            part = replace(part, batch=replace(part.batch, **{change: values}))
        expected = whole(monkeypatch, lambda b=backbone, p=part: score(b, [p]))
        assert_same(
            [one.detach() for one in score(backbone, [part])],
            [one.detach() for one in expected],
        )


@pytest.mark.parametrize("kind", ["bert", "bart", "gemma3"])
def test_checkpointing_changes_nothing(tiny, task, kind, monkeypatch):
    backbone = tiny(kind)
    model, part = part_of(backbone, task, config_of(backbone))
    expected = results(backbone, [model], [part])
    monkeypatch.setattr(backbone, "has_checkpointing", True)
    assert all(map(torch.equal, results(backbone, [model], [part]), expected))


@pytest.mark.parametrize("kind", HANDS_ON_MORE)
def test_layers_that_hand_on_more_than_states_all_run(tiny, kind):
    assert not can_skip_layers(tiny(kind), 1)


def test_layers_that_look_at_the_embeddings_all_run(tiny, monkeypatch):
    """A layer that adds what another one below it gave is found by trying."""
    backbone = tiny("bert")
    assert can_skip_layers(backbone, 1)
    first = backbone.stacks[0].layers[0]
    kept = []
    true = type(first).forward

    def note(self, states, *given, **options):
        if self is first:
            kept[:] = [states]
        else:
            states = states + (kept.pop() if kept else 0)
        return true(self, states, *given, **options)

    monkeypatch.setattr(type(first), "forward", note)
    handle = backbone.model.base_model.register_forward_pre_hook(lambda *_: kept.clear())
    is_able = can_skip_layers(backbone, 1)
    handle.remove()
    assert not is_able


@pytest.mark.parametrize("kind", ["t5"])
def test_such_a_backbone_is_read_whole(tiny, task, kind, monkeypatch, runs):
    backbone = tiny(kind)
    model, part = part_of(backbone, task, config_of(backbone))
    expected = whole(monkeypatch, lambda: results(backbone, [model], [part]))
    assert all(map(torch.equal, results(backbone, [model], [part]), expected))


def test_a_copy_that_is_trained_and_a_callers_autocast_run_all_layers(
    tiny, task, monkeypatch, runs
):
    backbone = tiny("bert")
    _, part = part_of(backbone, task, config_of(backbone))
    score(backbone, [part])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score(backbone, [part])
    monkeypatch.setattr(backbone, "is_frozen", False)
    score(backbone, [part])
    assert runs[0] < runs[1] == runs[2]
