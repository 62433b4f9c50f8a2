"""Rows from a text, such as the task's instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from softprompts.errors import PromptError
from softprompts.prompts.initializers.base import Initializer, InitializerContext
from softprompts.prompts.initializers.labels import LabelsInitializer
from softprompts.prompts.initializers.vocabulary import VocabularyInitializer

if TYPE_CHECKING:
    from softprompts.backbones.backbone import Backbone


@final
class TextInitializer(Initializer):
    """Embeddings of a text's first tokens; rows beyond it are random vocabulary rows before it.

    So the text ends where the input begins, where rows stand before the input, and no token
    stands twice.

    Without a text it takes the task's instruction, or rows from its label words where it has none
    (or tasks of a mixture differ in it), or random vocabulary rows where it has neither.
    """

    has_text = True

    def __init__(self, text: str | None = None) -> None:
        self.text = text

    def num_tokens(self, backbone: Backbone, instruction: str) -> int:
        """Return how many tokens the text has, 0 where there is none."""
        return len(self._ids(backbone, instruction))

    def _ids(self, backbone: Backbone, instruction: str) -> list[int]:
        text = self.text or instruction
        ids: list[int] = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def __call__(self, length: int, context: InitializerContext) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`."""
        backbone = context.backbone
        ids = self._ids(backbone, context.instruction)[:length]
        if self.text and length and not ids:
            raise PromptError(
                f"`prompt.initializer.text` must have at least one token, but is {self.text!r}."
            )
        if not ids and context.label_words:
            return LabelsInitializer()(length, context)
        own = backbone.embed(torch.tensor(ids, dtype=torch.long)).float().cpu()
        others = VocabularyInitializer()(length - len(ids), context)
        return torch.cat([others, own])
