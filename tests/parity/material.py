"""What the comparisons with peft share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone

TEXTS = ("the soup was cold and the waiter forgot us", "rain all day")


def padded(backbone: Backbone, texts: Sequence[str] = TEXTS) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask of texts, padded on the right."""
    lines = [list(backbone.tokenizer(text)["input_ids"]) for text in texts]
    width = max(map(len, lines))
    pad = backbone.tokenizer.pad_token_id
    ids = torch.tensor([line + [pad] * (width - len(line)) for line in lines])
    mask = torch.tensor([[1] * len(line) + [0] * (width - len(line)) for line in lines])
    return ids, mask
