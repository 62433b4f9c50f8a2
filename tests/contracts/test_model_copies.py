"""A model with a prompt can be compiled, copied and pickled, and stays with its backbone."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch

import softprompts as sp
from contracts.conftest import covering
from softprompts.backbones.loading import load_backbone
from softprompts.errors import BackboneError

KINDS = ["bert", "gpt2", "llama", "t5"]
METHODS = ["prompt-tuning", "p-tuning-v2"]
IDS = torch.arange(12, 28).reshape(2, 8)
MASK = torch.tensor([[1] * 8, [1] * 6 + [0] * 2])

every_kind = pytest.mark.parametrize("kind", KINDS)
every_method = pytest.mark.parametrize("method", METHODS)


def make(backbone: Any, method: str = "prompt-tuning") -> sp.SoftPromptModel:
    """Return a model with three rows."""
    return sp.SoftPromptModel(backbone, sp.PromptConfig(method=method, length=3))


def read(run: Callable[..., Any], model: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return states and the gradients of all rows."""
    model.zero_grad()
    states = run(IDS, MASK).last_hidden_state
    (states.float() @ torch.arange(states.shape[-1]).cos()).sum().backward()
    return states.detach(), [one.grad.clone() for one in model.parameters()]


@pytest.mark.parametrize(
    ("kind", "dtype", "attention", "method"),
    covering(
        [
            (kind, dtype, attention, method)
            for kind in KINDS
            for dtype, attention in (("float32", None), ("bfloat16", None), ("bfloat16", "sdpa"))
            for method in METHODS
        ],
        1,
    ),
)
def test_compiled_models_give_the_same(
    backbone_folder: Any, kind: str, dtype: str, attention: str | None, method: str
) -> None:
    backbone = load_backbone(str(backbone_folder(kind)), dtype=dtype, attention=attention)
    model = make(backbone, method)
    states, gradients = read(model, model)
    found, slopes = read(torch.compile(model, backend="aot_eager"), model)
    assert torch.equal(found, states)
    assert slopes
    assert all(map(torch.equal, slopes, gradients))


def test_what_stands_around_a_model_is_compiled(tiny: Any) -> None:
    model, graphs = make(tiny("bert")).requires_grad_(False), []

    def note(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def around(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = model(ids, mask).last_hidden_state
        return states.tanh().square()

    found = torch.compile(around, backend=note)(IDS, MASK)
    assert torch.allclose(found, around(IDS, MASK))
    assert len(graphs) == 1


@every_method
@every_kind
def test_copies_share_the_backbone_and_nothing_trained(tiny: Any, kind: str, method: str) -> None:
    model = make(tiny(kind), method)
    copied = copy.deepcopy(model)
    states, _ = read(model, model)
    assert copied.backbone is model.backbone
    assert torch.equal(read(copied, copied)[0], states)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    assert torch.equal(read(model, model)[0], states)
    assert not torch.equal(read(copied, copied)[0], states)


@pytest.mark.parametrize(
    ("kind", "dtype", "method"),
    covering(list(product(KINDS, ("float32", "bfloat16"), METHODS)), 1),
)
def test_pickles_hold_the_prompt_and_a_name(
    backbone_folder: Any, kind: str, dtype: str, method: str
) -> None:
    backbone = load_backbone(str(backbone_folder(kind)), dtype=dtype)
    model = make(backbone, method)
    states, gradients = read(model, model)
    file = io.BytesIO()
    torch.save(model, file)
    assert file.tell() < 60_000
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert again.backbone is not backbone
    assert (again.backbone.dtype, again.backbone.attention) == (backbone.dtype, backbone.attention)
    found, slopes = read(again, again)
    assert torch.equal(found, states)
    assert all(map(torch.equal, slopes, gradients))


def test_pickles_of_other_weights_are_refused(
    backbone_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(backbone_folder("bert")))
    monkeypatch.setattr(backbone, "fingerprint", "0" * 8)
    file = io.BytesIO()
    torch.save(make(backbone), file)
    file.seek(0)
    with pytest.raises(BackboneError, match="that it was pickled with, 00000000, but has"):
        torch.load(file, weights_only=False)


def test_backbones_without_a_name_are_not_pickled(
    backbone_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(backbone_folder("bert")))
    monkeypatch.setattr(backbone, "reload", None)
    with pytest.raises(BackboneError, match="loaded by name to be pickled, but is not"):
        torch.save(make(backbone), io.BytesIO())


def test_trained_backbones_are_neither_copied_nor_pickled(backbone_folder: Any) -> None:
    backbone = load_backbone(str(backbone_folder("bert")))
    model = make(backbone)
    backbone.train_only(backbone.model.parameters())
    with pytest.raises(BackboneError, match="must be frozen to be copied, but is trained"):
        copy.deepcopy(model)
    with pytest.raises(BackboneError, match="must be frozen and loaded by name"):
        torch.save(model, io.BytesIO())


@every_kind
def test_rows_stay_with_their_backbone(tiny: Any, kind: str) -> None:
    model = make(tiny(kind))
    rows = [one.clone() for one in model.parameters()]
    with pytest.raises(BackboneError, match=r"must be that of .*, cpu, .* but is meta: load"):
        model.to("meta")
    for change in (model.half, model.double, lambda: model.to(torch.bfloat16)):
        with pytest.raises(BackboneError, match=r"must be torch.float32, but is torch.[bfd]"):
            change()
    assert model.to("cpu").to(torch.float32) is model
    assert all(map(torch.equal, model.parameters(), rows))


def test_a_prompt_of_another_backbone_reaches_into_attention(backbone_folder: Any) -> None:
    first, second = (load_backbone(str(backbone_folder("gpt2"))) for _ in range(2))
    model = make(first, "p-tuning-v2")
    other = sp.SoftPromptModel(second, model.prompt)
    assert torch.equal(read(other, other)[0], read(model, model)[0])
