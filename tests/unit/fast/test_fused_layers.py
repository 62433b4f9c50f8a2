"""What layers do between products, in one pass: it is what it is by its formula, both ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from softprompts.backbones.loading import load_backbone
from softprompts.fast import fused_layers
from softprompts.fast.fused_attention import why_not
from softprompts.fast.fused_layers import fuse_layers, rms_norm, rotate, swiglu

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

Outputs = Tensor | tuple[Tensor, ...]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def both_ways(compute: Callable[..., Outputs], given: list[Tensor]) -> list[Tensor]:
    """Return outputs, and gradients of what is given with slopes drawn in bfloat16."""
    leaves = [one.detach().requires_grad_() for one in given]
    outputs = compute(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    slopes = [drawn(*one.shape, seed=9 + i).to(one) for i, one in enumerate(outputs)]
    return [*(one.detach() for one in outputs), *torch.autograd.grad(outputs, leaves, slopes)]


def check(compute: Callable[..., Outputs], exact: Callable[..., Outputs], *given: Tensor) -> None:
    found = both_ways(compute, list(given))
    expected = both_ways(exact, [one.double() for one in given])
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        # half a unit of the last place, and what is lost where two terms cancel
        torch.testing.assert_close(one.double(), other, rtol=2.0**-8, atol=1e-4)


@pytest.mark.parametrize("width", [1, 16, 37, 96])
@pytest.mark.parametrize("rows", [(3,), (2, 13)])
def test_swiglu_is_its_formula(rows: tuple[int, ...], width: int) -> None:
    joint = 3 * drawn(*rows, 2 * width)
    check(swiglu, lambda gate, up: functional.silu(gate) * up, *joint.split(width, dim=-1))
    check(swiglu, lambda gate, up: functional.silu(gate) * up, *joint.chunk(2, dim=-1)[::-1])


def test_swiglu_of_extremes() -> None:
    gate = torch.tensor([200.0, -200.0, 0.0, float("nan"), float("inf")]).bfloat16()
    found = both_ways(swiglu, [gate, torch.ones_like(gate)])
    assert found[0][:3].tolist() == [200.0, 0.0, 0.0]
    assert found[1][:3].tolist() == [
        gate.new_ones(()) * drawn(5, seed=9)[0],
        0.0,
        drawn(5, seed=9)[2] / 2,
    ]
    assert found[0].isnan().tolist() == [False, False, False, True, False]


def test_gradients_of_gate_and_up_lie_side_by_side() -> None:
    gate, up = (drawn(1, 5, 8, seed=i).requires_grad_() for i in range(2))
    found = torch.autograd.grad(swiglu(gate, up).sum(), (gate, up))
    assert found[0].stride() == found[1].stride() == (80, 16, 1)
    assert found[1].data_ptr() - found[0].data_ptr() == 8 * 2


@pytest.mark.parametrize("shape", [(1, 1), (3, 16), (2, 13, 70), (1, 20, 576)])
def test_rms_norm_is_its_formula(shape: tuple[int, ...]) -> None:
    weight, values = drawn(shape[-1], seed=3), 5 * drawn(*shape)

    def exact(x: Tensor) -> Tensor:
        return weight.double() * x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()

    check(lambda x: rms_norm(x, weight, 1e-5), exact, values)
    check(lambda x: rms_norm(x.mT, weight, 1e-5), lambda x: exact(x.mT), values.mT.contiguous())


def test_rms_norm_of_zeros_is_bounded_by_epsilon() -> None:
    found = both_ways(lambda x: rms_norm(x, torch.ones(8).bfloat16(), 1.0), [drawn(2, 8) * 0])
    torch.testing.assert_close(found[0], torch.zeros(2, 8).bfloat16())
    torch.testing.assert_close(found[1], drawn(2, 8, seed=9))


@pytest.mark.parametrize(("heads", "key_heads", "size"), [(4, 2, 24), (1, 1, 2), (3, 3, 64)])
def test_rotation_is_its_formula(heads: int, key_heads: int, size: int) -> None:
    tokens = 13
    cosine, sine = drawn(1, tokens, size, seed=5), drawn(1, tokens, size, seed=6)
    given = [drawn(1, tokens, n * size, seed=n) for n in (heads, key_heads, key_heads)]

    def turn(x: Tensor) -> Tensor:
        half = torch.cat([-x[..., size // 2 :], x[..., : size // 2]], dim=-1)
        return x * cosine.double()[:, None] + half * sine.double()[:, None]

    def split(x: Tensor) -> Tensor:
        return x.view(1, tokens, -1, size).transpose(1, 2)

    check(
        lambda *states: rotate(*map(split, states), cosine, sine),
        lambda q, k, v: (turn(split(q)), turn(split(k)), split(v)),
        *given,
    )


def test_gradients_of_a_part_come_back_alone() -> None:
    states = [drawn(1, 2, 5, 8, seed=i).requires_grad_() for i in range(3)]
    query, key, value = rotate(*states, drawn(1, 5, 8), drawn(1, 5, 8))
    for outputs, has_some in (((query,), (1, 0, 0)), ((key, value), (0, 1, 1))):
        total = sum(one.sum() for one in outputs)
        found = torch.autograd.grad(total, states, allow_unused=True, retain_graph=True)
        assert [one is not None for one in found] == list(map(bool, has_some))


def fused(model: nn.Module) -> Counter[str]:
    forwards = (vars(module).get("forward") for module in model.modules())
    known = ("_norm", "_gate", "_attend")
    names = (getattr(getattr(one, "func", None), "__name__", "") for one in forwards)
    return Counter(name for name in names if name in known)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", {"_norm": 5, "_gate": 2, "_attend": 2}),
        ("qwen3", {"_norm": 9, "_gate": 2}),
        ("bert", {}),
    ],
)
def test_the_modules_of_a_model_are_found(tiny: Any, kind: str, expected: dict[str, int]) -> None:
    backbone = load_backbone(tiny(kind).name, dtype="bfloat16", attention="fused")
    assert fused(backbone.model) == Counter(expected)
    plain = load_backbone(tiny(kind).name, dtype="bfloat16", attention="plain")
    assert not fused(plain.model)


def test_a_model_reads_as_it_did_and_sends_the_gradients_back(tiny: Any) -> None:
    backbone = load_backbone(tiny("llama").name, dtype="bfloat16", attention="fused")
    exact = load_backbone(tiny("llama").name, dtype="float32", attention="eager")
    mask = (torch.arange(9) < torch.tensor([[9], [4], [6]])).long()
    gather = torch.tensor([[8], [3], [5]])
    errors = []
    for own in (True, False):
        if not own:
            for module in backbone.model.modules():
                if getattr(vars(module).get("forward"), "func", None) in fused_layers.FORWARDS:
                    del module.forward
        found = []
        for one in (backbone, exact):
            rows = drawn(3, 9, 32).to(one.dtype).requires_grad_()
            states = one.hidden(rows, mask, None, gather)
            (slope,) = torch.autograd.grad((states * drawn(*states.shape).to(states)).sum(), rows)
            found.append((states.detach().double(), slope.double() * mask[..., None]))
        errors.append([float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True)])
    assert all(mine <= 1.5 * theirs + 1e-3 for mine, theirs in zip(*errors, strict=True)), errors
    assert max(errors[0]) < 0.05


class Odd(nn.Module):
    """A norm by another formula, under a name that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(8).bfloat16()), 1e-5

    def forward(self, hidden_states: Tensor) -> Tensor:
        scale = hidden_states.square().mean(dim=-1, keepdim=True).rsqrt()
        return (1 + self.weight) * hidden_states * scale


class Right(Odd):
    def forward(self, hidden_states: Tensor) -> Tensor:
        scale = (hidden_states.square().mean(dim=-1, keepdim=True) + 1e-5).rsqrt()
        return self.weight * hidden_states * scale


def test_a_module_that_differs_or_has_a_hook_keeps_its_forward() -> None:
    model = nn.Sequential(Odd(), Right(), Right())
    model[2]._hf_hook = object()
    assert fuse_layers(model) == 1
    assert ["forward" in vars(module) for module in model] == [False, True, False]


def test_weights_that_are_trained_get_their_gradient() -> None:
    model = nn.Sequential(Right())
    assert fuse_layers(model) == 1
    model(drawn(2, 8)).sum().backward()
    assert model[0].weight.grad is not None
    model[0].float()
    assert model(torch.ones(2, 8)).dtype == torch.float32
