"""Files that a recipe names: which they are, without reading more than their digests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from softprompts.component import Component
from softprompts.problems import Problem, show
from softprompts.recipes.component_fields import AXES
from softprompts.recipes.presets import METHODS, NUM_ROWS
from softprompts.recipes.schema import PromptConfig, SourceConfig
from softprompts.storage import PROMPT_FILE, file_digest, read_tensors, rows_file

WORD_VECTORS, WORD_VECTORS_DIGEST = "word_vectors", "word_vectors_digest"
"""Options of a perturbation: a file, and the digest of its content."""

ROWS_FILE, ROWS_DIGEST = "path", "digest"
"""Options of the initializer `file`: file or run folder, and the digest of the file's content."""

_FIELD = "prompt.from_run"
_FILES = ("config.json", "result.json", PROMPT_FILE)


def source_problems(prompt: PromptConfig) -> Iterator[Problem]:
    """Find what is wrong with the run that a prompt starts from.

    A folder is looked at only where its digest is not known yet, so that an adapted run can be
    read when its source is gone.
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
    if initializer is not None and initializer != AXES["initializer"].build(preset.initializer):
        yield Problem(
            (_FIELD, "prompt.initializer"),
            f"`prompt.initializer` must be left out with `{_FIELD}`, since rows start as that "
            f"run's, but is {show(initializer)}.",
        )
    if source.digest is None:
        yield from _folder_problems(Path(source.folder))


def rows_file_problems(prompt: PromptConfig) -> Iterator[Problem]:
    """Find what is wrong with the file that rows start from.

    It is looked at only where its digest is not known yet, so that a run can be read when the file
    is gone.
    """
    initializer = prompt.initializer
    if initializer is None or not _names_file(initializer):
        return
    path = initializer.options[ROWS_FILE]
    if initializer.options[ROWS_DIGEST] is None:
        try:
            file_digest(rows_file(path))
        except (OSError, ValueError) as error:  # such as a name that no file may have
            field, reason = f"prompt.initializer.{ROWS_FILE}", _reason(error)
            text = (
                f"`{field}` must be a prompt file or a run folder, but {show(path)} cannot be "
                f"read: {reason}."
            )
            yield Problem((field,), text)


def with_pinned_rows(initializer: Component) -> Component:
    """Return an initializer with the digest of its file, where it has a file."""
    if not _names_file(initializer) or initializer.options[ROWS_DIGEST] is not None:
        return initializer
    digest = file_digest(rows_file(initializer.options[ROWS_FILE]))
    return initializer.model_copy(update={ROWS_DIGEST: digest})


def _names_file(initializer: Component) -> bool:
    return {ROWS_FILE, ROWS_DIGEST} <= initializer.options.keys()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def pinned(source: SourceConfig | None) -> SourceConfig | None:
    """Return the source with its digest, read from its folder where a recipe leaves it open."""
    if source is None or source.digest is not None:
        return source
    return source.model_copy(update={"digest": digest_of(Path(source.folder))})


def digest_of(folder: Path) -> str:
    """Return a fingerprint of what a run has trained: its `prompt.safetensors`.

    Raises:
        OSError: if the file cannot be read.
    """
    return file_digest(folder / PROMPT_FILE)


def num_rows_of(folder: Path) -> int:
    """Return the number of rows that a run has trained, `NUM_ROWS` where its file holds none.

    Raises:
        StorageError: if the file cannot be read.
    """
    path = folder / PROMPT_FILE
    tensors = read_tensors(path)[0] if path.is_file() else {}
    return len(tensors["rows"]) if "rows" in tensors else NUM_ROWS


def _folder_problems(folder: Path) -> Iterator[Problem]:
    """Find out whether a folder holds a finished run."""
    try:
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if not missing:
            digest_of(folder)
            return
        reason = f"has no {missing[0]}"
    except (OSError, ValueError) as error:  # such as a name that no file may have
        reason = f"cannot be read: {_reason(error)}"
    text = f"`{_FIELD}` must be the folder of a finished run, but {show(str(folder))} {reason}."
    yield Problem((_FIELD,), text)


def word_vector_problems(regularizers: Sequence[Component]) -> Iterator[Problem]:
    """Find what is wrong with the files of word vectors that perturbations name.

    A file is looked at only where its digest is not known yet, so that a run can be read when its
    file is gone.
    """
    for number, options in _with_word_vectors(regularizers):
        field = f"regularizers.{number}.perturbation.{WORD_VECTORS}"
        path, digest = options[WORD_VECTORS], options[WORD_VECTORS_DIGEST]
        if path is None:
            text = (
                f"`{field}_digest` must be left out without `{WORD_VECTORS}`, but is "
                f"{show(digest)}."
            )
            yield Problem((f"{field}_digest",), text)
        elif digest is None:
            try:
                file_digest(Path(path))
            except (OSError, ValueError) as error:  # such as a name that no file may have
                text = (
                    f"`{field}` must be a file, but {show(path)} cannot be read: {_reason(error)}."
                )
                yield Problem((field,), text)


def with_pinned_vectors(regularizers: Sequence[Component]) -> list[Component]:
    """Return regularizers whose files of word vectors have their digests."""
    found = list(regularizers)
    for number, options in _with_word_vectors(regularizers):
        if options[WORD_VECTORS_DIGEST] is None:
            digest = file_digest(Path(options[WORD_VECTORS]))
            perturbation = {**options, WORD_VECTORS_DIGEST: digest}
            found[number] = found[number].model_copy(update={"perturbation": perturbation})
    return found


def _with_word_vectors(
    regularizers: Sequence[Component],
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the perturbation of each regularizer that names word vectors."""
    for number, regularizer in enumerate(regularizers):
        perturbation = regularizer.options.get("perturbation") or {}
        if {perturbation.get(WORD_VECTORS), perturbation.get(WORD_VECTORS_DIGEST)} != {None}:
            yield number, perturbation
