"""Attention whose keys have weights of their own, open or closed, with a gradient for both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LEAST = 1e-30
"""Below this share of attention, what is left open sends no gradient to scores."""


def mix(weights: Tensor, values: Tensor, gates: Tensor, span: slice, own: int) -> Tensor:
    """Mix values by weights times gates, each position with itself whatever its gate.

    Args:
        weights: attention as without gates. Shape `(batch, heads, tokens, keys)`.
        values: values. Shape `(batch, heads, keys, size)`.
        gates: weight of each key, 0 or 1. Shape `(batch, keys)`.
        span: keys whose gate may be other than 1.
        own: how many of the last of these are positions too.

    Returns:
        Shape `(batch, heads, tokens, size)`.
    """
    return _Gated.apply(weights, values, gates, span, own)  # type: ignore[no-any-return, no-untyped-call]


class _Gated(torch.autograd.Function):
    """See `mix`.

    `o_i = sum_j m_ij v_j / sum_j m_ij` with `m_ij = p_ij g_j`, but `m_ii = p_ii`. Ones are put
    beside the values, so that one product gives both sums; what a position reads of itself beyond
    its gate, `(1 - g_i) p_ii`, is added. Written out, since its backward pass then needs no more
    passes over `p` than that of attention without gates, and little more over the values.

    All gates are 1 but those of the keys in `span`; the last `own` of these are positions too, and
    positions stand at the end of the keys.

    An open gate gets the derivative of the output. A closed one gets what opening it would change,
    `p / (T + p) (v - o)` with the open weights' sum `T`: the derivative at 0, `p / T (v - o)`, has
    no bound where a closed key would take nearly all attention.
    """

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, values: Tensor, gates: Tensor, span: slice, own: int
    ) -> Tensor:
        ones = values.new_ones(1).expand(*values.shape[:-1], 1)
        valued = torch.cat([values, ones], dim=3)  # (batch, heads, keys, size + 1)
        rows = valued[:, :, span].clone()
        valued[:, :, span] *= gates[:, None, span, None]
        mixed = weights @ valued  # (batch, heads, tokens, size + 1)
        if own:
            queries, itself = _own(weights, span, own)
            share = itself * (1 - gates[:, None, span][..., -own:])  # (batch, heads, length)
            mixed[:, :, queries] += rows[:, :, -own:] * share[..., None]
        total = mixed[..., -1:]
        total = total.masked_fill(total <= 0, 1.0)  # padding that a window leaves nothing to read
        output = mixed[..., :-1] / total
        ctx.save_for_backward(weights, valued, rows, gates, total, output)
        ctx.span, ctx.own = span, own
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        weights, valued, rows, gates, total, output = ctx.saved_tensors
        span, own = ctx.span, ctx.own
        effect = -(gradient * output).sum(dim=3, keepdim=True)
        both = torch.cat([gradient, effect], dim=3)  # (batch, heads, tokens, size + 1)
        beside = weights[..., span]
        chances = beside / (total + beside * (1 - gates[:, None, None, span]))  # (…, length)
        both_shares = both / total.clamp(min=_LEAST)
        of_weights = both_shares @ valued.transpose(2, 3)  # (batch, heads, tokens, keys)
        of_valued = weights.transpose(2, 3) @ both_shares  # (batch, heads, keys, size + 1)
        of_valued[:, :, span] *= gates[:, None, span, None]
        if own:
            queries, itself = _own(weights, span, own)
            at_own = both_shares[:, :, queries]  # (batch, heads, length, size + 1)
            closed = 1 - gates[:, None, span][..., -own:]
            gain = (at_own * rows[:, :, -own:]).sum(dim=3) * closed
            _own(of_weights, span, own)[1].add_(gain)
            of_valued[:, :, span][:, :, -own:] += at_own * (itself * closed)[..., None]
            _own(chances, slice(0, chances.shape[3]), own, queries)[1].zero_()
        along = chances.transpose(2, 3) @ both  # (batch, heads, length, size + 1)
        wide = torch.promote_types(gates.dtype, torch.float32)
        of_gates = torch.zeros_like(gates)
        of_gates[:, span] = (along * rows).sum(dim=(1, 3), dtype=wide).to(gates)
        return of_weights, of_valued[..., :-1], of_gates, None, None


def _own(
    weights: Tensor, span: slice, own: int, queries: slice | None = None
) -> tuple[slice, Tensor]:
    """Return the last `own` positions of a span of keys, and where they meet themselves.

    The second is a view. Shape `(batch, heads, length)`.
    """
    keys = slice(span.stop - own, span.stop)
    if queries is None:
        before = weights.shape[3] - weights.shape[2]
        queries = slice(keys.start - before, keys.stop - before)
    return queries, weights[:, :, queries, keys].diagonal(dim1=2, dim2=3)
