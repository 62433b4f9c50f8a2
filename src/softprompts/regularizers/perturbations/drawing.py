"""What perturbations draw per example, and how field tokens are moved or replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Generator, Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import Batch
from softprompts.regularizers.base import Inputs, Perturbed
from softprompts.regularizers.words import words_of


def draw_normal(inputs: Inputs, copy: int) -> Tensor:
    """Return standard normal numbers for the field tokens of each example, 0 beyond them.

    An example's numbers depend on its place in the update alone, not on the micro-batch. Float32.
    Shape `(batch, width, embedding)`.
    """
    return _drawn(inputs, own_draws(inputs, copy), torch.randn)


def draw_uniform(inputs: Inputs, copy: int) -> Tensor:
    """Return numbers even in `[0, 1)`, as `draw_normal` does, and apart from those."""
    return _drawn(inputs, own_draws(inputs, copy, "perturbation-uniform"), torch.rand)


def _drawn(
    inputs: Inputs, given: list[tuple[int, Generator]], sample: Callable[..., Tensor]
) -> Tensor:
    width, size = inputs.fields.width, inputs.embeddings.shape[-1]
    stacked = torch.zeros(len(given), width, size)
    for example, (count, draws) in enumerate(given):
        stacked[example, :count] = sample(count, size, generator=draws)
    return stacked.to(inputs.embeddings.device)


def own_draws(inputs: Inputs, copy: int, name: str = "perturbation") -> list[tuple[int, Generator]]:
    """Return the number of field tokens and a fresh generator of each example."""
    counts = inputs.fields.counts.tolist()
    places = [0] * len(counts)
    examples = inputs.fields.examples.tolist()
    for example, place in zip(examples, inputs.draws.places.tolist(), strict=True):
        places[example] = place
    return [
        (count, inputs.draws.own(name, place, inputs.number, copy))
        for count, place in zip(counts, places, strict=True)
    ]


def moved(inputs: Inputs, changes: Tensor) -> Perturbed:
    """Return inputs whose field tokens are moved.

    Changes are per example and field token. Shape `(batch, width, embedding)`.
    """
    embeddings = inputs.embeddings
    added = inputs.fields.spread(changes.detach()).to(embeddings)
    return Perturbed(embeddings + added, (changes != 0).flatten(1).any(dim=1))


def replaced(inputs: Inputs, backbone: Backbone, swaps: Sequence[Mapping[int, int]]) -> Perturbed:
    """Return inputs with other tokens in place of some field tokens, and how to show them.

    `swaps` are, for each example, new token ids by number of its field token.
    """
    fields, ids = inputs.fields, inputs.batch.ids
    own = torch.full((fields.num_examples, fields.width), -1)
    for example, swap in enumerate(swaps):
        for number, token in swap.items():
            own[example, number] = token
    taken = own.to(ids.device)[fields.examples[:, None], fields.numbers]  # (inputs, tokens)
    is_new = fields.mask & (taken >= 0) & (taken != ids)
    embeddings = inputs.embed(torch.where(is_new, taken, ids))
    embeddings = torch.where(is_new[..., None], embeddings, inputs.embeddings)
    changed = torch.zeros(fields.num_examples, device=ids.device)
    changed = changed.index_add(0, fields.examples, is_new.any(dim=1).to(changed))
    wording = partial(_wording, inputs.batch, backbone.tokenizer.decode, swaps)
    return Perturbed(embeddings, changed > 0, wording=wording)


def _wording(
    batch: Batch,
    decode: Callable[[list[int]], str],
    swaps: Sequence[Mapping[int, int]],
    example: int,
) -> tuple[str, str]:
    """Return an example's words before and after, those that were replaced in brackets."""
    before, after = [], []
    for word in words_of(batch)[example]:
        given = zip(word.numbers, word.ids, strict=True)
        ids = [swaps[example].get(number, token) for number, token in given]
        old, new = (" ".join(decode(list(one)).split()) for one in (word.ids, ids))
        is_same = ids == list(word.ids)
        before.append(old if is_same else f"[{old}]")
        after.append(new if is_same else f"[{new}]")
    return " ".join(before), " ".join(after)
