"""Scores from the likelihood of label tokens, shared by the readouts with a language head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softprompts.encoding.batch import Batch

_BLOCK_BYTES = 1 << 20
"""Logits in float32 that a processor works on at once: they stay in its cache."""


def target_scores(
    logits: Tensor, batch: Batch, reads: Tensor, *, is_length_normalized: bool
) -> Tensor:
    """Return the log-likelihood of each column's tokens.

    `score[example, column] = sum_i log softmax(logits[read, i])[token_i]`, divided by the number
    of tokens when length-normalized.

    Args:
        logits: vocabulary logits; slot `i` predicts a target's token `i`. Shape
            `(reads, slots, vocab)`.
        batch: the batch with its targets.
        reads: the row of `logits` that each target is read from. Shape `(targets,)`.
        is_length_normalized: mean instead of sum.

    Returns:
        Scores, `-inf` where there is no target. Shape `(batch, labels)`.
    """
    targets = batch.targets
    slots = torch.arange(targets.tokens.shape[1], device=logits.device)
    rows = reads[:, None] * logits.shape[1] + slots  # (targets, width)
    likelihoods = log_likelihoods(logits.flatten(0, 1), rows, targets.tokens)  # (targets, width)
    mask = targets.mask.to(likelihoods)
    scores = (likelihoods * mask).sum(dim=1)  # (targets,)
    if is_length_normalized:
        scores = scores / mask.sum(dim=1)
    result = scores.new_full(batch.valid.shape, -torch.inf)
    return result.index_put((batch.examples[targets.inputs], targets.columns), scores)


def log_likelihoods(logits: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Return `log softmax(logits[row])[token]`, taken in float32.

    The vocabulary is gone through a block of rows at a time, so that no copy of the logits in
    float32, nor of their softmax, is made; the gradient of the logits is one tensor of their dtype.

    Args:
        logits: shape `(reads, vocab)`.
        rows: of the logits, long. Any shape.
        tokens: entries of those rows, long. Shape of `rows`.

    Returns:
        Float32. Shape of `rows`.
    """
    return _LogLikelihoods.apply(logits, rows, tokens)  # type: ignore[no-any-return, no-untyped-call]


class _LogLikelihoods(torch.autograd.Function):
    """Keeps the logits, and the logarithm of each row's sum."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        sums = torch.cat([block.float().logsumexp(dim=1) for block in _blocks(logits)])  # (reads,)
        ctx.save_for_backward(logits, rows, tokens, sums)
        return logits[rows, tokens].float() - sums[rows]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, rows, tokens, sums = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            plain = logits.float().log_softmax(dim=1)[rows, tokens]
            (found,) = torch.autograd.grad(plain, logits, gradient, create_graph=True)
            return found, None, None
        of_sums = torch.zeros_like(sums).index_put_((rows,), gradient, accumulate=True)
        found = torch.empty_like(logits, memory_format=torch.contiguous_format)
        parts = (_blocks(logits), _blocks(found), *(_like(logits, one) for one in (sums, of_sums)))
        for block, into, own, factor in zip(*parts, strict=True):
            weights = (block.float() - own[:, None]).exp_()
            into.copy_(weights.mul_(-factor[:, None]))
        places, inverse = (rows * logits.shape[1] + tokens).unique(return_inverse=True)
        of_places = gradient.new_zeros(len(places)).index_add_(
            0, inverse.flatten(), gradient.flatten()
        )
        row = places // logits.shape[1]
        chosen = (logits.reshape(-1)[places].float() - sums[row]).exp() * -of_sums[row]
        found.view(-1)[places] = (chosen + of_places).to(found.dtype)
        return found, None, None


def _blocks(logits: Tensor) -> tuple[Tensor, ...]:
    """Return rows of logits in blocks; on an accelerator all in one."""
    return torch.split(logits, _rows_at_once(logits))


def _like(logits: Tensor, values: Tensor) -> tuple[Tensor, ...]:
    """Return one entry a row, in the same blocks."""
    return torch.split(values, _rows_at_once(logits))


def _rows_at_once(logits: Tensor) -> int:
    if logits.device.type != "cpu":
        return max(1, len(logits))
    return max(1, _BLOCK_BYTES // (4 * logits.shape[1]))
