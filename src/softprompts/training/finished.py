"""Finished runs: what their folders must hold, and how they are read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompts.errors import StorageError
from softprompts.storage import PROMPT_FILE, is_there, read_record, read_tensors
from softprompts.training.stored import RunResult, check_result, required

if TYPE_CHECKING:
    from torch import Tensor

    from softprompts.training.trainable import Model

RESULT = required(RunResult)
"""What `result.json` must have to be read: what summaries and reports are made from."""


def prompt_header(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `prompt.safetensors` says of its run: whose it is, and the labels it scores."""
    text = json.dumps(about["task_format"], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"identity": about["identity"], "task_format_digest": digest}


def read_result(folder: Path, identity: str) -> dict[str, Any]:
    """Read a run folder's `result.json`.

    Args:
        folder: the folder of a finished run.
        identity: the run that the result must be of.

    Raises:
        StorageError: if the run is not finished, or the file is broken or of another run.
        RunFolderError: if a value in it is wrong.
    """
    path = folder / "result.json"
    if not is_there(path):
        raise StorageError(f"{folder} must hold a finished run, but has no result.json.")
    result = read_record(path, RESULT)
    check_result(path, result)
    if result["identity"] != identity:
        raise StorageError(
            f"{path} must be the result of run {identity}, but is of {result['identity']}."
        )
    return result


def load_finished(folder: Path, about: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Put a finished run's trained parts into a model.

    Args:
        folder: the folder.
        about: content of its `config.json`.
        model: the run's model, in any state.

    Returns:
        The content of `result.json`.

    Raises:
        StorageError: if a file is missing, broken or of another run.
    """
    result = read_result(folder, about["identity"])
    model.load(read_prompt(folder, about), str(folder / PROMPT_FILE))
    return result


def read_prompt(folder: Path, about: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read what a finished run has trained.

    Args:
        folder: the run's folder.
        about: content of its `config.json`.

    Returns:
        Tensors by name.

    Raises:
        StorageError: if the file is missing, broken or of another run.
    """
    path = folder / PROMPT_FILE
    tensors, header = read_tensors(path)
    for key, value in prompt_header(about).items():
        if header.get(key) != value:
            raise StorageError(
                f"{path} must have `{key}` {value}, as config.json has, but has {header.get(key)}."
            )
    return dict(tensors)
