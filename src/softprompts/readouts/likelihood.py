"""Scores from the likelihood of label tokens, shared by the readouts with a language head."""

from __future__ import annotations

import torch
from torch import Tensor

from softprompts.encoding.batch import Batch


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
    logits = logits.float()
    width = targets.tokens.shape[1]
    slots = torch.arange(width, device=logits.device)
    chosen = logits[reads[:, None], slots, targets.tokens]  # (targets, width)
    normalizers = logits.logsumexp(dim=-1)[:, :width][reads]  # (targets, width)
    mask = targets.mask.to(logits)
    scores = ((chosen - normalizers) * mask).sum(dim=1)  # (targets,)
    if is_length_normalized:
        scores = scores / mask.sum(dim=1)
    result = scores.new_full(batch.valid.shape, -torch.inf)
    return result.index_put((batch.examples[targets.inputs], targets.columns), scores)
