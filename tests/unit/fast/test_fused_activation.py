"""GELU in one pass is GELU, for every number there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from softprompts.backbones.loading import load_backbone
from softprompts.fast.fused_activation import fuse_activations, gelu
from softprompts.fast.fused_attention import why_not
from softprompts.fast.hints import Hints

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

KINDS = {False: "none", True: "tanh"}


def all_numbers() -> Tensor:
    """Return every finite bfloat16."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    values = bits.view(torch.bfloat16)
    return values[values.isfinite()]


def in_last_places(found: Tensor, expected: Tensor, least: float = 1e-6) -> float:
    """Return the greatest error in units of the last place, or of `least` where that is more."""
    unit = (expected.abs() * 2.0**-8).clamp_min(least)
    return float(((found.double() - expected).abs() / unit).max())


@pytest.mark.parametrize("is_tanh", KINDS)
def test_every_value_and_slope_is_right_to_the_last_place(is_tanh: bool) -> None:
    values = all_numbers().requires_grad_()
    exact = values.detach().double().requires_grad_()
    expected = functional.gelu(exact, approximate=KINDS[is_tanh])
    found = gelu(values, is_tanh)
    assert in_last_places(found.detach(), expected.detach()) <= 1
    (slope,) = torch.autograd.grad(found.sum(), values)
    (wanted,) = torch.autograd.grad(expected.sum(), exact)
    assert in_last_places(slope, wanted, 1e-5) <= 1  # where it crosses 0 two terms cancel


@pytest.mark.parametrize("is_tanh", KINDS)
def test_what_is_no_number_stays_none(is_tanh: bool) -> None:
    values = torch.tensor([float("nan"), 1.0] * 20).bfloat16()
    assert gelu(values, is_tanh).isnan().tolist() == [True, False] * 20


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5, 7), (2, 5000)])
def test_shapes_strides_and_gradients_are_kept(shape: tuple[int, ...]) -> None:
    values = torch.randn(*shape, 2).bfloat16()[..., 0].requires_grad_()
    factors = torch.randn(*shape, 2).bfloat16()[..., 1]
    (own,) = torch.autograd.grad(gelu(values), values, factors)
    (other,) = torch.autograd.grad(functional.gelu(values), values, factors)
    torch.testing.assert_close(own, other)


def test_what_is_not_bfloat16_goes_to_pytorch() -> None:
    values = torch.randn(9)
    assert torch.equal(gelu(values), functional.gelu(values))
    assert torch.equal(gelu(values, is_tanh=True), functional.gelu(values, approximate="tanh"))


@pytest.mark.parametrize(("kind", "number"), [("bert", 2), ("gpt2", 2), ("llama", 0)])
def test_the_modules_of_a_model_are_found(
    tiny: Any, kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(tiny(kind).name, dtype="bfloat16", attention="fused")
    calls: list[bool] = []
    from softprompts.fast import fused_activation

    run = fused_activation._run

    def counted(values: Tensor, gradient: Tensor | None, is_tanh: bool) -> Tensor:
        calls.append(is_tanh)
        return run(values, gradient, is_tanh)

    monkeypatch.setattr(fused_activation, "_run", counted)
    rows = backbone.embed(torch.arange(12, 20)[None])
    backbone.hidden(rows, torch.ones(1, 8, dtype=torch.long), None)
    assert calls == [kind == "gpt2"] * number
    plain = load_backbone(tiny(kind).name, dtype="bfloat16", attention="plain")
    calls.clear()
    plain.hidden(rows, torch.ones(1, 8, dtype=torch.long), None)
    assert not calls


def test_a_module_with_a_hook_keeps_its_forward() -> None:
    model = torch.nn.Sequential(torch.nn.GELU(), torch.nn.GELU("tanh"), torch.nn.ReLU())
    model[0]._hf_hook = object()
    assert fuse_activations(model, Hints()) == 1
    assert "forward" in vars(model[1])
    assert "forward" not in vars(model[0])
