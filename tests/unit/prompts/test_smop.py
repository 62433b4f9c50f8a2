"""The pool whose gate gives each input one set."""

from __future__ import annotations

import pytest
import torch

from softprompts.prompts.draws import Draws
from softprompts.prompts.pools.smop import SmopPool
from softprompts.prompts.rows.plain import PlainRows
from softprompts.seeding import generator


def pool(size=3, width=5, **options):
    draws = generator(0, "test")
    sets = [PlainRows(torch.randn(4, 6, generator=draws), draws) for _ in range(size)]
    return SmopPool(sets, width, generator(0, "pool"), size=size, **options)


def vectors(count=64, width=5):
    return torch.randn(count, width, generator=generator(2, "test"))


def draws(count=64, step=0):
    return Draws(0, step, 0, torch.arange(count), count)


@pytest.mark.parametrize("is_scaled", [True, False])
def test_rows_are_those_of_the_largest_share_in_float64(is_scaled):
    own, x = pool(is_scaled=is_scaled).double(), vectors().double()
    rows, weights = own(64, x, None)
    scaled = x / x.square().mean(dim=1, keepdim=True).sqrt()
    shares = (scaled @ own.weight.T).softmax(dim=1)
    for place in range(64):
        best = int(shares[place].argmax())
        scale = shares[place, best] if is_scaled else 1.0
        expected = scale * own.bake()[best]
        torch.testing.assert_close(rows[place], expected, atol=1e-12, rtol=1e-12)
        assert weights[place].nonzero().flatten().tolist() == [best]
    assert len(weights.argmax(dim=1).unique()) == 3


@pytest.mark.parametrize("is_scaled", [True, False])
def test_the_gate_learns_through_the_share_and_the_sets_through_their_inputs(is_scaled):
    own, x = pool(is_scaled=is_scaled), vectors()
    rows, weights = own(64, x, None)
    target = torch.randn(rows.shape, generator=generator(3, "test"))
    (rows * target).sum().backward()
    gate = own.weight.grad.clone()
    own.zero_grad()
    scaled = x / x.square().mean(dim=1, keepdim=True).sqrt()
    shares = (scaled @ own.weight.T).softmax(dim=1)
    best = weights.argmax(dim=1)
    largest = shares.gather(1, best[:, None])[:, 0]
    factor = largest if is_scaled else largest / largest.detach()
    ((own.bake()[best] * target).sum(dim=(1, 2)) * factor).sum().backward()
    torch.testing.assert_close(gate, own.weight.grad, atol=1e-4, rtol=1e-4)


def test_rows_of_the_router_are_orthogonal_at_first():
    weight = pool(size=4, width=7).weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(4), atol=1e-5, rtol=0)
    assert pool(size=6, width=3).weight.shape == (6, 3)


def test_noise_is_each_examples_own_and_only_in_training():
    own, x = pool(noise=3.0), vectors()
    still, first, again, other = (
        own(64, x, d)[1].argmax(dim=1) for d in (None, draws(), draws(), draws(step=1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, still)
    assert not torch.equal(first, other)
    half = Draws(0, 0, 1, torch.arange(32, 64), 64)
    assert torch.equal(own(32, x[32:], half)[1].argmax(dim=1), first[32:])
    quiet = pool(noise=0.0)
    assert torch.equal(quiet(64, x, draws())[1], quiet(64, x, None)[1])
