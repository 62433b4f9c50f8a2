"""Random vocabulary rows."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.prompts.initializers.base import Initializer, InitializerContext


@final
class VocabularyInitializer(Initializer):
    """Embeddings of tokens drawn at random, without repeats, special tokens left out.

    Reference:
        Lester, Al-Rfou and Constant (2021), arXiv 2104.08691, section 3.2.
    """

    def __init__(self) -> None: ...

    def __call__(self, length: int, context: InitializerContext) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`."""
        backbone, ids = context.backbone, _named_ids(context.backbone)
        order = torch.randperm(len(ids), generator=context.generator)
        ids = ids[order]
        ids = ids[~torch.isin(ids, _added_ids(backbone))]  # moves no other draw
        repeats = -(-length // len(ids)) if length else 1
        return backbone.embed(ids.repeat(repeats)[:length]).float().cpu()


def ordinary_ids(backbone: Backbone) -> Tensor:
    """Return the ids of a backbone's tokens without special ones. Shape `(vocab,)`."""
    ids = _named_ids(backbone)
    return ids[~torch.isin(ids, _added_ids(backbone))]


def _added_ids(backbone: Backbone) -> Tensor:
    """Return the ids of special tokens that were added to a tokenizer. Shape `(tokens,)`."""
    added = backbone.tokenizer.added_tokens_decoder
    return torch.tensor([i for i, one in added.items() if one.special], dtype=torch.long)


def _named_ids(backbone: Backbone) -> Tensor:
    """Return the ids without special tokens that the tokenizer has a name for. Shape `(vocab,)`."""
    special = set(backbone.tokenizer.all_special_ids)
    known = min(len(backbone.tokenizer), backbone.vocabulary_size)
    return torch.tensor([i for i in range(known) if i not in special])
