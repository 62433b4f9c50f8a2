"""Attention written out with matrix products: the fastest there is for bfloat16 on a processor.

PyTorch's fused attention has a slow backward pass there, and eager attention goes over the matrix
of scores four times more than it needs to.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NAME = "softprompts-plain"
"""The name under which transformers finds `attend_plainly`."""

HARMLESS = frozenset({"is_causal", "sliding_window", "position_ids", "cache_position", "use_cache"})
"""Options that say nothing that the mask does not say."""


def attend_plainly(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as a model's eager code does, faster where it asks for nothing special.

    Args:
        module: the attention of the model.
        query: queries. Shape `(batch, heads, tokens, size)`.
        key: keys; heads may be fewer. Shape `(batch, heads, keys, size)`.
        value: values, of as many heads. Shape `(batch, heads, keys, width)`.
        attention_mask: added to the scores, or `None`.
        scaling: factor on the scores; `size ** -0.5` when `None`.
        dropout: share of weights that are dropped.
        options: whatever else the model gives its attention.

    Returns:
        The output. Shape `(batch, tokens, heads, width)`. And weights, where eager code ran.
    """
    special = {name for name, one in options.items() if one is not None and one is not False}
    is_trained = attention_mask is not None and attention_mask.requires_grad
    if dropout or is_trained or special - HARMLESS:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        options |= {"scaling": scaling, "dropout": dropout}
        return eager(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    copies = query.shape[1] // key.shape[1]
    if copies > 1:
        key, value = (one.repeat_interleave(copies, dim=1) for one in (key, value))
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return plain_attention(query, key, value, attention_mask, scaling), None


def register() -> None:
    """Make this attention known to transformers under its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, attend_plainly)
    AttentionMaskInterface.register(NAME, eager_mask)


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """Return `softmax(scaling * Q K^T + mask) V`.

    Args:
        query: queries. Shape `(batch, heads, tokens, size)`.
        key: keys. Shape `(batch, heads, keys, size)`.
        value: values. Shape `(batch, heads, keys, width)`.
        mask: added to the scores. Broadcasts to `(batch, heads, tokens, keys)`.
        scaling: factor on the scores.

    Returns:
        Shape `(batch, tokens, heads, width)`.
    """
    return _Plain.apply(query, key, value, mask, scaling)  # type: ignore[no-any-return, no-untyped-call]


class _Plain(torch.autograd.Function):
    """The scale is part of the products, and the mask is what scores are added to."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
    ) -> Tensor:
        batch, heads, tokens, _ = query.shape
        q, k, v = (one.reshape(batch * heads, *one.shape[2:]) for one in (query, key, value))
        shape = (batch, heads, tokens, key.shape[2])
        if mask is None:
            scores = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=scaling)
        else:
            scores = q.new_empty(shape).copy_(mask).view(batch * heads, *shape[2:])
            scores.baddbmm_(q, k.mT, alpha=scaling)
        weights = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scaling, ctx.shape = scaling, shape
        output = torch.bmm(weights, v).view(batch, heads, tokens, -1)
        return output.transpose(1, 2).contiguous()  # some models ask for a view of it

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, weights = ctx.saved_tensors
        batch, heads, *_ = ctx.shape
        g = gradient.transpose(1, 2).reshape(batch * heads, -1, v.shape[2])
        of_value = torch.bmm(weights.mT, g)
        of_weights = torch.bmm(g, v.mT)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        nothing = q.new_empty(())
        of_query = torch.baddbmm(nothing, of_scores, k, beta=0, alpha=ctx.scaling)
        of_key = torch.baddbmm(nothing, of_scores.mT, q, beta=0, alpha=ctx.scaling)
        of_query, of_key, of_value = (
            one.view(batch, heads, *one.shape[1:]) for one in (of_query, of_key, of_value)
        )
        return of_query, of_key, of_value, None, None
