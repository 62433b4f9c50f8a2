"""Rows from a given text."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from softprompts.errors import PromptError
from softprompts.prompts.initializers.base import Initializer, Surroundings


@final
class TextInitializer(Initializer):
    """Embeddings of a text's tokens, repeated or cut to the prompt's length.

    Args:
        text: the text; special tokens are not added.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, length: int, surroundings: Surroundings) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`.

        Raises:
            PromptError: if the text has no tokens.
        """
        backbone = surroundings.backbone
        ids = backbone.tokenizer(self.text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise PromptError(
                f"`prompt.initializer.text` must have at least one token, but is {self.text!r}."
            )
        chosen = torch.tensor(ids).repeat(-(-length // len(ids)) if length else 1)[:length]
        return backbone.embed(chosen).float().cpu()
