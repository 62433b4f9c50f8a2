"""Rows from a file."""

from __future__ import annotations

from typing import final

from torch import Tensor

from softprompts.errors import PromptError
from softprompts.prompts.initializers.base import Initializer, InitializerContext
from softprompts.prompts.initializers.vocabulary import ordinary_ids
from softprompts.storage import file_digest, read_tensors, rows_file


@final
class FileInitializer(Initializer):
    """The baked rows of a trained prompt, of this library or of peft.

    It is a `prompt.safetensors` file or the run folder that holds one, or the file or folder of an
    adapter of peft. Snapped, each row is the embedding of the token that is nearest to it.
    """

    def __init__(self, path: str, digest: str | None = None, is_snapped: bool = False) -> None:
        self.path, self.digest, self.is_snapped = rows_file(path), digest, is_snapped

    def __call__(self, length: int, context: InitializerContext) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`."""
        path = self.path
        tensors, _ = read_tensors(path)
        if self.digest is not None and (found := file_digest(path)) != self.digest:
            raise PromptError(
                f"{path} must be the file that rows start from, with digest {self.digest}, but has "
                f"{found}."
            )
        names = [name for name in ("rows", "prompt_embeddings") if name in tensors]
        if not names:
            raise PromptError(f"{path} must hold a tensor 'rows', but holds {sorted(tensors)}.")
        rows = tensors[names[0]].float()
        expected = (length, context.backbone.embedding_size)
        if tuple(rows.shape) != expected:
            raise PromptError(
                f"rows of {path} must have shape {expected}, but have {tuple(rows.shape)}."
            )
        if not self.is_snapped:
            return rows
        table = (
            context.backbone.embed(ordinary_ids(context.backbone)).float().cpu()
        )  # (vocab, size)
        scores = table.square().sum(dim=1) - 2 * rows @ table.T  # (length, vocab)
        return table[scores.argmin(dim=1)]
