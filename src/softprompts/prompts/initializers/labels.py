"""Rows from the class-label words."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from softprompts.errors import PromptError
from softprompts.prompts.initializers.base import Initializer, InitializerContext
from softprompts.prompts.initializers.vocabulary import VocabularyInitializer


@final
class LabelsInitializer(Initializer):
    """One row per class, the mean embedding of its label words; then random vocabulary rows.

    Reference:
        Lester, Al-Rfou and Constant (2021), arXiv 2104.08691, section 3.2.
    """

    def __init__(self) -> None: ...

    def __call__(self, length: int, context: InitializerContext) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`."""
        if not context.label_words:
            raise PromptError(
                "`prompt.initializer` must not be 'labels' for a task whose rows bring their own "
                "choices."
            )
        backbone = context.backbone
        means = []
        for words in context.label_words[:length]:
            ids = backbone.tokenizer(words, add_special_tokens=False)["input_ids"]
            means.append(backbone.embed(torch.tensor(ids)).float().mean(dim=0).cpu())
        others = VocabularyInitializer()(length - len(means), context)
        return torch.cat([torch.stack(means), others]) if means else others
