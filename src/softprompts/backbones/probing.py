"""Short forwards that tell whether a model does what a backbone must do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.frozen_model import FrozenModel
from softprompts.backbones.layers import Stack
from softprompts.backbones.sources import first_line
from softprompts.errors import BackboneError

_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
_VISIBLE = [0, 2, 3]
_LOWEST = 2


def probe_body(backbone: FrozenModel, scales: Sequence[float]) -> tuple[int, float]:
    """Return the width of a body's states, after checking that it can carry prompts, and a factor.

    The body puts the factor on the embeddings of token ids, not on embeddings that it is given.
    Short forwards tell. Token ids must give the states of their embeddings. Two rows differ at a
    masked position, and in a decoder at the last position too, so their states at all other
    positions must be equal. Embeddings that are no token's, as a prompt's are, must have a
    gradient.
    """
    ids, mask = _probe_ids(backbone), torch.tensor([[1, 0, 1, 1]] * 2, device=backbone.device)
    try:
        table = backbone.embed(ids).detach()  # (2, tokens, embedding)
        with torch.no_grad():
            states = _states(backbone.read_bare(mask, inputs_embeds=table))
            _check_states(states, backbone.dtype, backbone.family == "decoder")
            scale = _find_scale(backbone, ids[:1], table[:1], mask[:1], scales)
        slopes = _find_slopes(backbone, scale * table, mask[:1])
    except BackboneError:
        raise
    except Exception as error:  # whatever a model does with what it does not know
        advice = "" if backbone.dtype == torch.float32 else " Take dtype float32."
        raise BackboneError(
            f"a prompt must be read in {backbone.dtype} and have a gradient, but the model's own "
            f"code fails: {first_line(error)}{advice}"
        ) from error
    is_finite = bool(torch.isfinite(slopes).all())
    if not is_finite or not bool(slopes.any()):
        found = "0" if is_finite else f"not finite in {backbone.dtype}"
        raise BackboneError(
            "the gradient of a state at earlier embeddings must be finite and not 0, for a prompt "
            f"to be trained, but is {found}."
        )
    return int(states.shape[-1]), scale


def _probe_ids(backbone: FrozenModel) -> Tensor:
    """Return token ids of two rows, none of them padding's. Shape `(2, 4)`."""
    size = backbone.vocabulary_size
    ids = torch.arange(4, device=backbone.device).repeat(2, 1) * (size // 7)
    ids[1, 1] = size - 1
    if backbone.family == "decoder":
        ids[1, 3] = size - 2
    padding = getattr(backbone.model.config, "pad_token_id", None)
    return ids if padding is None else torch.where(ids == padding, size - 3, ids)


def _states(output: Any) -> Tensor:
    """Return the last states of what a body gives. Shape `(batch, tokens, hidden)`."""
    states = getattr(output, "last_hidden_state", None)
    if not isinstance(states, Tensor) or states.dim() != 3 or states.shape[1] != 4:
        found = tuple(states.shape) if isinstance(states, Tensor) else type(output).__name__
        raise BackboneError(f"the body must give one state per position, but gives {found}.")
    return states


def _find_scale(
    backbone: FrozenModel, ids: Tensor, table: Tensor, mask: Tensor, scales: Sequence[float]
) -> float:
    """Return the factor on embeddings that makes them what the body makes of their ids.

    Where all layers are given the same of both, so are states. Else all layers are run.
    """
    by_ids, by_rows = (
        _run_low(backbone, mask, name, one)[1]
        for name, one in (("input_ids", ids), ("inputs_embeds", table))
    )
    if len(by_ids) == len(by_rows) and all(map(torch.equal, by_ids, by_rows)):
        return 1.0
    expected = _states(backbone.read_bare(mask, input_ids=ids))[:, _VISIBLE]
    changes = []
    for scale in scales:
        states = _states(backbone.read_bare(mask, inputs_embeds=scale * table))[:, _VISIBLE]
        if is_same(expected, states):
            return scale
        changes.append(difference(expected.double(), states.double()))
    raise BackboneError(
        "the body must read from embeddings what it reads from token ids, but their states differ "
        f"by {min(changes):.2g} of their size: ids tell it more than their embeddings."
    )


def _run_low(
    backbone: FrozenModel, mask: Tensor, name: str, one: Tensor
) -> tuple[Tensor, list[Any]]:
    """Return states that the lowest layers make, and all tensors that layers are given."""
    given = list[Any]()
    states = run_low(
        backbone.stacks[0], lambda: _states(backbone.read_bare(mask, **{name: one})), given
    )
    return states, [value for value in tree_leaves(given) if isinstance(value, Tensor)]


def run_low(stack: Stack, run: Callable[[], Tensor], given: list[Any] | None = None) -> Tensor:
    """Return what the lowest layers alone make of an input; it passes through those above.

    All are run where they are of several kinds, which may not read what others give.
    """
    found = list[Tensor]()
    is_alike = len({type(layer) for layer in stack.layers}) == 1
    stack.outputs(lambda: found.append(run()), _LOWEST if is_alike else sys.maxsize, given)
    return found[0]


@torch.enable_grad()
def _find_slopes(backbone: FrozenModel, table: Tensor, mask: Tensor) -> Tensor:
    """Return gradients of the last state at earlier rows, which stand between those of tokens.

    Along a direction that no norm hides; through the lowest layers alone.
    """
    rows = table.mean(dim=0, keepdim=True) + table[:1, [1, 2, 3, 0]] / 2
    rows.requires_grad_()  # (1, tokens, embedding)
    states, _ = _run_low(backbone, mask, "inputs_embeds", rows)
    last = states[0, 3].float()  # (hidden,)
    direction = torch.arange(len(last), device=last.device).cos()
    (slopes,) = torch.autograd.grad(last @ direction, rows, allow_unused=True)
    return rows.new_zeros(1) if slopes is None else slopes[0, [0, 2]]


def _check_states(states: Tensor, dtype: torch.dtype, is_decoder: bool) -> None:
    """Check that states are finite and read nothing that they must not."""
    if not bool(torch.isfinite(states[:1, _VISIBLE]).all()):
        raise BackboneError(f"states must be finite, but are not in {dtype}: take a wider dtype.")
    change = difference(*states[:, [0, 2] if is_decoder else _VISIBLE].double())
    if not change <= _TOLERANCES[dtype]:
        raise BackboneError(
            "the body must not read masked positions, nor a decoder later ones, but they "
            f"change its states by {change:.2g} of their size."
        )


def short_input(backbone: FrozenModel) -> Tensor:
    """Return embeddings of a few tokens. Shape `(1, tokens, embedding)`."""
    return backbone.embed(short_ids(backbone))


def short_ids(backbone: FrozenModel) -> Tensor:
    """Return a few token ids. Shape `(1, tokens)`."""
    return torch.arange(4, device=backbone.device)[None] * (backbone.vocabulary_size // 7)


def read_once(backbone: FrozenModel, needs_head: bool, embeddings: Tensor | None = None) -> Tensor:
    """Run a backbone on a short input, as a readout would.

    It reads vocabulary logits or hidden states; a gradient may be wanted of `embeddings`, which are
    those of `short_input`. Shape `(1, tokens, vocab)` or `(1, tokens, hidden)`.
    """
    ids = short_ids(backbone)
    mask = torch.ones_like(ids)  # (1, tokens)
    embeddings = backbone.embed(ids) if embeddings is None else embeddings
    if not needs_head:
        return backbone.hidden(embeddings, mask, None)
    decoder = None
    if backbone.family == "encoder-decoder":
        decoder = DecoderInputs(ids, torch.zeros_like(ids[:, 0]), mask)
    places = torch.arange(ids.shape[1], device=backbone.device)[None]
    return backbone.logits(embeddings, mask, None, places, decoder)


@torch.no_grad()
def writes_behind_padding(backbone: FrozenModel) -> bool:
    """Return whether a decoder writes after an input on whose left is padding as after it alone."""
    ids = torch.arange(1, 5, device=backbone.device)[None] * (backbone.vocabulary_size // 7)
    alone = backbone.embed(ids)  # (1, tokens, embedding)

    def logits(num_padding: int) -> Tensor:
        rows = functional.pad(alone, (0, 0, num_padding, 0))
        mask = torch.ones(rows.shape[:2], dtype=torch.long, device=rows.device)
        mask[:, :num_padding] = 0
        found = backbone.model.generate(
            inputs_embeds=rows,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0) + backbone.first_position,
            max_new_tokens=2,
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            pad_token_id=backbone.tokenizer.pad_token_id,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return torch.cat(found.logits)

    return backbone.stacks[-1].run(lambda: is_same(logits(0), logits(3)))


def is_same(first: Tensor, second: Tensor) -> bool:
    """Return whether states are equal on the whole, but for what their dtype rounds away."""
    first, second, tolerance = first.double(), second.double(), _TOLERANCES[first.dtype]
    size = first.square().mean().sqrt()
    return float((first - second).square().mean().sqrt() / size) <= tolerance


def difference(first: Tensor, second: Tensor) -> float:
    """Return the largest difference, relative to the first one's root-mean-square."""
    return float((first - second).abs().max() / first.square().mean().sqrt())
