"""Short forwards that tell whether a model does what a backbone must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softprompts.backbones.families import Family
from softprompts.backbones.passing import DecoderInputs
from softprompts.errors import BackboneError

if TYPE_CHECKING:
    from softprompts.backbones.backbone import Backbone

_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def probe_states(
    read: Callable[[Tensor, Tensor], Any], vocabulary_size: int, family: Family, like: Tensor
) -> int:
    """Return the hidden size, after checking that masked and later positions are not read.

    One short forward tells: its two rows differ at a masked position, and in a decoder at the
    last position too, so their states at all other positions must be equal.

    Args:
        read: runs the body on ids and a mask. Shape `(2, 4)` each.
        vocabulary_size: rows of the embedding table.
        family: how the transformer is built.
        like: a tensor of the backbone's dtype and device.

    Returns:
        The width of a state.

    Raises:
        BackboneError: if the body gives no finite state per position, or reads what it must not.
    """
    ids = torch.arange(4, device=like.device).repeat(2, 1) * (vocabulary_size // 7)
    ids[1, 1] = vocabulary_size - 1
    mask = torch.tensor([[1, 0, 1, 1]] * 2, device=like.device)  # (2, 4)
    compared = [0, 2, 3]
    if family == "decoder":
        ids[1, 3] = vocabulary_size - 2
        compared = [0, 2]
    with torch.no_grad():
        output = read(ids, mask)
    states = getattr(output, "last_hidden_state", None)
    if not isinstance(states, Tensor) or states.shape[:2] != ids.shape:
        found = tuple(states.shape) if isinstance(states, Tensor) else type(output).__name__
        raise BackboneError(f"the body must give one state per position, but gives {found}.")
    first, second = states[:, compared].double()
    if not bool(torch.isfinite(first).all()):
        raise BackboneError(
            f"states must be finite, but are not in {like.dtype}: take a wider dtype."
        )
    change = difference(first, second)
    if not change <= _TOLERANCES[like.dtype]:
        raise BackboneError(
            "the body must not read masked positions, nor a decoder later ones, but they "
            f"change its states by {change:.2g} of their size."
        )
    return int(states.shape[-1])


def short_input(backbone: Backbone) -> Tensor:
    """Return embeddings of a few tokens. Shape `(1, tokens, embedding)`."""
    return backbone.embed(_short_ids(backbone))


def _short_ids(backbone: Backbone) -> Tensor:
    return torch.arange(4, device=backbone.device)[None] * (backbone.vocabulary_size // 7)


def read_once(backbone: Backbone, needs_head: bool, embeddings: Tensor | None = None) -> Tensor:
    """Run a backbone on a short input, as a readout would.

    Args:
        backbone: the backbone.
        needs_head: whether vocabulary logits are read rather than hidden states.
        embeddings: what `short_input` gives, where a gradient is wanted of it.

    Returns:
        What was read. Shape `(1, tokens, hidden)` or `(1, tokens, vocab)`.
    """
    ids = _short_ids(backbone)
    mask = torch.ones_like(ids)  # (1, tokens)
    embeddings = backbone.embed(ids) if embeddings is None else embeddings
    if not needs_head:
        return backbone.hidden(embeddings, mask, None)
    decoder = None
    if backbone.family == "encoder-decoder":
        decoder = DecoderInputs(ids, torch.zeros_like(ids[:, 0]), mask)
    places = torch.arange(ids.shape[1], device=backbone.device)[None]
    return backbone.logits(embeddings, mask, None, places, decoder)


def is_same(first: Tensor, second: Tensor) -> bool:
    """Return whether states are equal on the whole, but for what their dtype rounds away."""
    first, second, tolerance = first.double(), second.double(), _TOLERANCES[first.dtype]
    size = first.square().mean().sqrt()
    return float((first - second).square().mean().sqrt() / size) <= tolerance


def difference(first: Tensor, second: Tensor) -> float:
    """Return the largest difference, relative to the first one's root-mean-square."""
    return float((first - second).abs().max() / first.square().mean().sqrt())
