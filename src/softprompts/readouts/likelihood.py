"""Scores from the likelihood of label tokens, shared by the readouts with a language head."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import Batch
from softprompts.errors import BackboneError
from softprompts.prompts.splice import Spliced

_BLOCK_BYTES = 1 << 20
"""Logits in float32 that a processor works on at once: they stay in its cache."""


def check_writer(backbone: Backbone, readout: str) -> None:
    """Check that a backbone writes from left to right.

    Raises:
        BackboneError: if it does not.
    """
    if backbone.family == "encoder" or not backbone.has_language_head:
        raise BackboneError(
            f"`readout` must not be {readout!r} for {backbone.name}: it is no language model that "
            "writes from left to right. Use 'linear'"
            + (" or 'cloze'." if backbone.has_language_head else ".")
        )


def target_places(family: str, batch: Batch, spliced: Spliced) -> Tensor:
    """Return where target tokens are predicted.

    Args:
        family: that of the backbone.
        batch: the batch with its targets.
        spliced: its inputs with rows.

    Returns:
        Positions in the spliced sequence. Shape `(inputs, slots)`. For encoder-decoders, positions
        in the decoder. Shape `(targets, slots)`.
    """
    width = batch.targets.tokens.shape[1]
    slots = torch.arange(width, device=batch.ids.device)
    if family == "encoder-decoder":
        return slots.expand(batch.targets.tokens.shape[0], -1)
    first = spliced.lengths - batch.continuations  # (inputs,)
    places = torch.minimum(first[:, None] - 1 + slots, spliced.lengths[:, None] - 1)
    places[:, 0] = spliced.last_active(first)
    return places


def target_likelihoods(logits: Tensor, batch: Batch, family: str) -> Tensor:
    """Return the log-likelihood of each target's tokens; see `target_scores` for the arguments.

    Returns:
        `log softmax(logits[read, i])[token_i]`; what is off the mask says nothing. Shape
        `(targets, width)`.
    """
    targets = batch.targets
    reads = targets.inputs
    if family == "encoder-decoder":
        reads = torch.arange(len(reads), device=reads.device)
    slots = torch.arange(targets.tokens.shape[1], device=logits.device)
    rows = reads[:, None] * logits.shape[1] + slots  # (targets, width)
    return log_likelihoods(logits.flatten(0, 1), rows, targets.tokens)


def target_scores(
    logits: Tensor, batch: Batch, family: str, *, is_length_normalized: bool = False
) -> Tensor:
    """Return the log-likelihood of each column's tokens.

    `score[example, column] = sum_i log softmax(logits[read, i])[token_i]`, divided by the number
    of tokens when length-normalized.

    Args:
        logits: vocabulary logits; slot `i` predicts a target's token `i`. Shape
            `(reads, slots, vocab)`.
        batch: the batch with its targets.
        family: that of the backbone; a decoder's targets share the reading of their input.
        is_length_normalized: mean instead of sum.

    Returns:
        Scores, `-inf` where there is no target. Shape `(batch, labels)`.
    """
    targets, likelihoods = batch.targets, target_likelihoods(logits, batch, family)
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
        sums = []
        for block in torch.split(logits, _rows_at_once(logits)):
            sums.append(block.float().logsumexp(dim=1))
        joint = torch.cat(sums)  # (reads,)
        ctx.save_for_backward(logits, rows, tokens, joint)
        return logits[rows, tokens].float() - joint[rows]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, rows, tokens, sums = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            plain = logits.float().log_softmax(dim=1)[rows, tokens]
            (found,) = torch.autograd.grad(plain, logits, gradient, create_graph=True)
            return found, None, None
        of_sums = torch.zeros_like(sums).index_put_((rows,), gradient, accumulate=True)
        found = torch.empty_like(logits, memory_format=torch.contiguous_format)
        size, all_parts = _rows_at_once(logits), (logits, found, sums, of_sums)
        parts = map(torch.split, all_parts, repeat(size))
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


def _rows_at_once(logits: Tensor) -> int:
    """Return how many rows of logits make a block; on an accelerator all."""
    if logits.device.type != "cpu":
        return max(1, len(logits))
    return max(1, _BLOCK_BYTES // (4 * logits.shape[1]))
