"""Rows as words: of a tokenizer, and of a table of embeddings."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.families import find_body, find_table
from softprompts.errors import BackboneError
from softprompts.interop.baked import Baked
from softprompts.interop.task_text import TaskText
from softprompts.results import Result
from softprompts.training.trainable import Track


def table_of(backbone: Backbone) -> Tensor:
    """Return a backbone's table of embeddings, as its file holds it. Shape `(vocab, embedding)`."""
    table: Any = find_table(find_body(backbone.model, backbone.family))
    weight: Tensor = table.weight
    return weight.detach()


def with_words(backbone: Backbone, baked: Baked) -> tuple[Any, list[str], list[int]]:
    """Return a tokenizer that knows a word for each row, the words, and their ids.

    Their names hold a fingerprint of the rows, so that nobody writes them by chance.
    """
    from tokenizers import AddedToken

    tokenizer = copy.deepcopy(backbone.tokenizer)
    digest = hashlib.sha256(baked.rows.cpu().numpy().tobytes()).hexdigest()[:8]
    words = [f"<|row-{digest}-{number}|>" for number in range(len(baked.rows))]
    first = 1 + max(tokenizer.get_vocab().values())
    tokenizer.add_tokens([AddedToken(word, special=True, normalized=False) for word in words])
    ids: list[int] = tokenizer.convert_tokens_to_ids(words)
    if ids != list(range(first, first + len(words))):
        raise BackboneError(
            f"the tokenizer of {backbone.name} must number new tokens from {first} on, behind all "
            f"it has, but numbers them {ids}."
        )
    return tokenizer, words, ids


def describe(
    result: Result, track: Track, words: Sequence[str], ids: Sequence[int], text: TaskText
) -> dict[str, Any]:
    """Return what a folder says of itself."""
    return {
        "task": track.format.name,
        "identity": result.about["identity"],
        "backbone": result.backbone.name,
        "tokens": list(words),
        "token_ids": list(ids),
        "answers": {label: track.format.verbalizer.get(label) for label in track.format.labels},
        **asdict(text),
        "fields": list(text.fields),
    }


def table_with_rows(
    backbone: Backbone, rows: Tensor, ids: Sequence[int], *, is_scaled: bool = False
) -> Tensor:
    """Return the table of embeddings with rows in place, with as many words more as are needed.

    A model may multiply what it looks up; in its file, rows are divided by that.

    Rows are embeddings as the model reads them, and `is_scaled` gives all so. Shapes
    `(length, embedding)` and `(vocab, embedding)`.
    """
    old = table_of(backbone)
    longest = int(old.float().norm(dim=1).argmax())
    seen = backbone.embed(torch.tensor([longest], device=backbone.device))[0].double()
    kept = old[longest].double()
    scale = 1.0 if is_scaled else float((seen @ kept) / (kept @ kept))
    new = old.new_zeros(max(len(old), 1 + max(ids)), old.shape[1])
    new[: len(old)] = backbone.embed(torch.arange(len(old))) if is_scaled else old
    new[list(ids)] = (rows.to(old.device) / scale).to(old.dtype)
    return new
