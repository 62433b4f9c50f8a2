"""Rows from a file."""

from __future__ import annotations

from pathlib import Path
from typing import final

from torch import Tensor

from softprompts.errors import PromptError
from softprompts.prompts.initializers.base import Initializer, Surroundings
from softprompts.storage import read_tensors


@final
class FileInitializer(Initializer):
    """The baked rows of a trained prompt.

    Args:
        path: a `prompt.safetensors` file, or the run folder that holds one.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def __call__(self, length: int, surroundings: Surroundings) -> Tensor:
        """Return the first rows, float32. Shape `(length, hidden)`.

        Raises:
            PromptError: if the file holds no rows, or rows of another shape.
            StorageError: if it cannot be read.
        """
        path = self.path / "prompt.safetensors" if self.path.is_dir() else self.path
        tensors, _ = read_tensors(path)
        if "rows" not in tensors:
            raise PromptError(f"{path} must hold a tensor 'rows', but holds {sorted(tensors)}.")
        rows = tensors["rows"].float()
        expected = (length, surroundings.backbone.embedding_size)
        if tuple(rows.shape) != expected:
            raise PromptError(
                f"rows of {path} must have shape {expected}, but have {tuple(rows.shape)}."
            )
        return rows
