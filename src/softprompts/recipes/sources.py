"""The run that a prompt starts from: which it is, without reading more than its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from softprompts.recipes.presets import METHODS
from softprompts.recipes.problems import Problem, show
from softprompts.recipes.schema import INITIALIZER_AXIS, PromptConfig, SourceConfig

PROMPT_FILE = "prompt.safetensors"
_FIELD = "prompt.from_run"
_FILES = ("config.json", "result.json", PROMPT_FILE)


def source_problems(prompt: PromptConfig) -> Iterator[Problem]:
    """Find what is wrong with the run that a prompt starts from.

    A folder is looked at only where its digest is not known yet, so that an adapted run can be
    read when its source is gone.

    Args:
        prompt: a prompt whose fields are valid.

    Yields:
        One problem per rule that is broken.
    """
    source = prompt.from_run
    if source is None:
        return
    preset = METHODS[prompt.method]
    if (preset.length if prompt.length is None else prompt.length) == 0:
        yield Problem(
            (_FIELD, "prompt.length", "prompt.method"),
            f"`{_FIELD}` must be left out when `prompt.length` is 0, since there are no rows, but "
            f"is {show(source.folder)}.",
        )
    initializer = prompt.initializer
    if initializer is not None and initializer != INITIALIZER_AXIS.build(preset.initializer):
        yield Problem(
            (_FIELD, "prompt.initializer"),
            f"`prompt.initializer` must be left out with `{_FIELD}`, since rows start as that "
            f"run's, but is {show(initializer)}.",
        )
    if source.digest is None:
        yield from _folder_problems(Path(source.folder))


def pinned(source: SourceConfig | None) -> SourceConfig | None:
    """Return the source with its digest, read from its folder where a recipe leaves it open.

    Args:
        source: a source that `source_problems` has nothing against.
    """
    if source is None or source.digest is not None:
        return source
    return source.model_copy(update={"digest": digest_of(Path(source.folder))})


def digest_of(folder: Path) -> str:
    """Return a fingerprint of what a run has trained: its `prompt.safetensors`.

    Args:
        folder: the folder of a finished run.

    Raises:
        OSError: if the file cannot be read.
    """
    with open(folder / PROMPT_FILE, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _folder_problems(folder: Path) -> Iterator[Problem]:
    """Find out whether a folder holds a finished run."""
    try:
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if not missing:
            digest_of(folder)
            return
        reason = f"has no {missing[0]}"
    except (OSError, ValueError) as error:  # such as a name that no file may have
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    text = f"`{_FIELD}` must be the folder of a finished run, but {show(str(folder))} {reason}."
    yield Problem((_FIELD,), text)
