"""A run through compiled layers: prompts that reach into attention, and going on after a stop."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

import softprompts.training.execution as execution
from contracts.conftest import run_config
from contracts.test_memory import gradients
from softprompts.backbones.loading import load_backbone
from softprompts.fast import compiling
from softprompts.recipes.resolving import resolve
from softprompts.training.building import build_model
from softprompts.training.footprint import bound_positions, describe_memory
from softprompts.training.journal import NoJournal
from softprompts.training.pack import train_pack
from softprompts.training.progress import Progress
from softprompts.training.resources import Resources

pytestmark = [
    # torch looks for a gradient while it traces, and says at each look that there is none
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not:UserWarning"),
    # what makes code is imported when it is first used, and uses what torch itself has given up
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture
def compiled(backbone_folder):
    return load_backbone(str(backbone_folder("gpt2")), compile=True)


@pytest.mark.parametrize(
    "method",
    [
        "p-tuning-v2",
        pytest.param("adap-len", marks=pytest.mark.slow),
        pytest.param("prompt-tuning", marks=pytest.mark.slow),
    ],
)
def test_every_gradient_is_that_of_plain_layers(tiny, compiled, task, method, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    results = []
    for backbone in (tiny("gpt2"), compiled):
        model = build_model(run_config(backbone, method, "text"), backbone, task.format)
        results.append(gradients(backbone, model, task))
    assert counters["stats"]["unique_graphs"] > 0
    for first, second in zip(*results, strict=True):
        assert first.abs().sum() > 0
        torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-5 * float(first.abs().max()))


def test_memory_is_estimated_before_layers_are_compiled(compiled, task, monkeypatch):
    """Tensors are counted there, where torch compiles nothing: layers run as they are."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    config = resolve(run_config(compiled, "prompt-tuning", "linear", steps=1))
    setup = execution.set_up(config, compiled, {"custom": task}, Resources())
    member = setup.member(NoJournal())
    assert describe_memory(member).startswith("estimated memory: ")
    bound_positions(compiled, [member, setup.member(NoJournal())])  # as a pack of a study
    assert counters["stats"]["unique_graphs"] == 0
    train_pack(compiled, [member])
    assert counters["stats"]["unique_graphs"] > 0


class Stop(Progress):
    """Ends a run after an update, like a kill."""

    def update(self, step, total_steps):
        if step == 3:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_resumed_run_is_an_uninterrupted_one(compiled, task, tmp_path):
    """What was compiled is forgotten at the stop, as by a new process."""
    training = {"steps": 5, "checkpoint_every_steps": 2, "learning_rate": 0.1}
    config = run_config(compiled, "prompt-tuning", "linear", **training)
    whole = execution.execute(config, compiled, task, folder=tmp_path / "whole")
    assert counters["stats"]["unique_graphs"] > 0
    with pytest.raises(KeyboardInterrupt):
        execution.execute(config, compiled, task, folder=tmp_path / "cut", progress=Stop())
    torch._dynamo.reset()
    again = execution.execute(config, compiled, task, folder=tmp_path / "cut")
    for one, other in zip(again.model.parameters, whole.model.parameters, strict=True):
        assert torch.equal(one, other)
