"""The gradient of a learned split: what every other arrangement of rows would have done."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tie(
    chosen: Tensor,
    weights: Tensor,
    tokens: Tensor,
    attention_mask: Tensor,
    rows: Tensor,
    edges: tuple[Tensor, Tensor],
) -> Tensor:
    """Let the gradient of every split reach the weights that chose one.

    Value and gradient are those of `sum_s weights_s splice(split = s)` with one-hot weights, at
    the cost of the chosen arrangement: no loop over splits, and no arrangement is built but one.

    Args:
        chosen: the chosen arrangement. Shape `(batch, length + tokens, hidden)`.
        weights: one-hot at the chosen split, with a gradient. Shape `(batch, length + 1)`.
        tokens: token embeddings as they went into `splice`. Shape `(batch, tokens, hidden)`.
        attention_mask: 1 on tokens, 0 on padding. Shape `(batch, tokens)`.
        rows: prompt rows. Shape `(batch, length, hidden)`.
        edges: index before which rows in front, and rows behind, stand. Shape `(batch,)` each.
    """
    order = (1 - attention_mask).argsort(dim=1, stable=True)  # tokens first, padding last
    packed = tokens.gather(1, order[..., None].expand_as(tokens))  # (batch, tokens, hidden)
    places = torch.arange(attention_mask.shape[1], device=tokens.device)
    before = [(attention_mask * (places < edge[:, None])).sum(dim=1) for edge in edges]
    ranks = (before[0], before[1], attention_mask.sum(dim=1))
    tied: Tensor = _Arrangement.apply(  # type: ignore[no-untyped-call]
        chosen, weights, packed.detach(), rows.detach(), ranks
    )
    return tied


class _Arrangement(torch.autograd.Function):
    """Passes the chosen arrangement through; sends each arrangement's gradient to its weight.

    The chosen arrangement is one term of `sum_s w_s A_s` with `w` one-hot. The gradient of `w_s` is
    the inner product of the output's gradient `G` with `A_s`. No `A_s` is built for it: with `a`
    tokens before the place in front and `e` before the place behind, token `r` stands at
    `r + s` for `a <= r < e`, row `i` at `a + i` for `i < s` and at `e + i` otherwise.
    """

    @staticmethod
    def forward(
        ctx: Any,
        chosen: Tensor,
        weights: Tensor,
        tokens: Tensor,
        rows: Tensor,
        edges: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        ctx.save_for_backward(tokens, rows, *edges)
        ctx.dtype = weights.dtype
        return chosen.view_as(chosen)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        tokens, rows, begin, stop, count = ctx.saved_tensors
        g = gradient.to(rows.dtype)
        num_tokens, length = tokens.shape[1], rows.shape[1]
        offsets = torch.arange(length, device=g.device)

        def at(places: Tensor) -> Tensor:
            """Return `<G at place i, row i>`. Shape `(batch, length)`."""
            products: Tensor = g.gather(1, places[..., None].expand_as(rows)) * rows
            return products.sum(dim=-1)

        front = at(begin[:, None] + offsets).cumsum(dim=1)
        behind = at(stop[:, None] + offsets).flip(1).cumsum(dim=1).flip(1)
        zero = front.new_zeros(front.shape[0], 1)
        total = torch.cat([zero, front], dim=1) + torch.cat([behind, zero], dim=1)
        products = tokens.to(rows.dtype) @ g.transpose(1, 2)  # (batch, tokens, length + tokens)
        ranks = torch.arange(num_tokens, device=g.device)
        shifts = torch.arange(length + 1, device=g.device)
        is_moved = (ranks >= begin[:, None]) & (ranks < stop[:, None])  # (batch, tokens)
        is_after = (ranks >= stop[:, None]) & (ranks < count[:, None])
        shift = torch.where(is_moved[..., None], shifts, 0) + length * is_after[..., None]
        along = products.gather(2, ranks[:, None] + shift)  # (batch, tokens, length + 1)
        along = along * (ranks < count[:, None])[..., None]
        return gradient, (total + along.sum(dim=1)).to(ctx.dtype), None, None, None
