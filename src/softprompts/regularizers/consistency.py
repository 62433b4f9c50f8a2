"""How far the prediction for a perturbed input is from the clean one, or from the label."""

from __future__ import annotations

from torch import Tensor


def kl(clean: Tensor, perturbed: Tensor, valid: Tensor) -> Tensor:
    """Return `KL(p || q) = sum_c p_c (log p_c - log q_c)`, `p` clean and `q` perturbed.

    `valid` columns are those that exist; the scores of others are not looked at. Shapes
    `(batch, labels)` and `(batch,)`.
    """
    log_p, log_q = _log_softmax(clean, valid), _log_softmax(perturbed, valid)
    return (log_p.exp() * valid * (log_p - log_q)).sum(dim=1)


def symmetric_kl(clean: Tensor, perturbed: Tensor, valid: Tensor) -> Tensor:
    """Return `(KL(p || q) + KL(q || p)) / 2`; see `kl` for the arguments."""
    return (kl(clean, perturbed, valid) + kl(perturbed, clean, valid)) / 2


def _log_softmax(scores: Tensor, valid: Tensor) -> Tensor:
    """Return log-probabilities over the columns that exist, 0 in the others."""
    held = scores.masked_fill(~valid, -float("inf")).log_softmax(dim=1)
    return held.masked_fill(~valid, 0.0)
