"""Attention written out is attention."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from softprompts.fast.plain_attention import attend_plainly, plain_attention


def draw(*shape: int) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return values.double().requires_grad_(True)


MASKS = {
    "none": None,
    "padding": torch.zeros(2, 1, 1, 7).index_fill(3, torch.tensor([5, 6]), -1e30),
    "causal": torch.zeros(1, 1, 5, 7).masked_fill(torch.ones(5, 7).triu(3).bool(), -1e30),
    "per head": torch.randn(2, 3, 5, 7),
}


@pytest.mark.parametrize("name", MASKS)
def test_value_and_gradients_are_those_of_pytorch(name: str) -> None:
    mask = MASKS[name]
    mask = None if mask is None else mask.double()
    inputs = (draw(2, 3, 5, 4), draw(2, 3, 7, 4), draw(2, 3, 7, 6))
    expected = functional.scaled_dot_product_attention(*inputs, attn_mask=mask, scale=0.3)
    found = plain_attention(*inputs, mask, 0.3).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    factors = torch.randn_like(expected)
    gradients = torch.autograd.grad((found * factors).sum(), inputs)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * factors).sum(), inputs))


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    inputs = (draw(1, 1, 3, 2), draw(1, 1, 3, 2), draw(1, 1, 3, 2))
    (first,) = torch.autograd.grad(
        plain_attention(*inputs, None, 1.0).sum(), inputs[:1], create_graph=True
    )
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(first.sum(), inputs[:1])


def test_the_mask_of_one_head_is_not_written_to() -> None:
    mask = torch.zeros(1, 1, 3, 3)
    inputs = [draw(1, 1, 3, 2).float() for _ in range(3)]
    plain_attention(*inputs, mask, 1.0)
    assert not mask.any()


class Special(torch.nn.Module):
    """An attention whose options only its own eager code knows."""


def eager_attention_forward(*arguments, **options):
    return options["softcap"], None


@pytest.mark.parametrize("options", [{"softcap": 3.0}, {"softcap": 3.0, "sliding_window": 4}])
def test_what_asks_for_more_gets_the_models_own_code(options: dict[str, float]) -> None:
    inputs = [draw(1, 1, 3, 2) for _ in range(3)]
    assert attend_plainly(Special(), *inputs, None, **options) == (3.0, None)


def test_grouped_heads_are_repeated() -> None:
    query, key, value = draw(1, 4, 3, 2), draw(1, 2, 3, 2), draw(1, 2, 3, 2)
    found, _ = attend_plainly(Special(), query, key, value, None, sliding_window=4, is_causal=None)
    repeated = (one.repeat_interleave(2, dim=1) for one in (key, value))
    expected = functional.scaled_dot_product_attention(query, *repeated)
    torch.testing.assert_close(found.transpose(1, 2), expected)
