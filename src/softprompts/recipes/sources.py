"""Files that a recipe names: which they are, without reading more than their digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from softprompts.component import Component
from softprompts.problems import Problem, broken, show
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
    """Find what is wrong with the run, or the file, that a prompt starts from.

    Either is looked at only where its digest is not known yet, so that an adapted run can be read
    when its source is gone; so it is with files of word vectors.
    """
    source, initializer, preset = prompt.from_run, prompt.initializer, METHODS[prompt.method]
    if source is not None:
        if (preset.length if prompt.length is None else prompt.length) == 0:
            rule = "be left out when `prompt.length` is 0, since there are no rows"
            yield broken(rule, source.folder, _FIELD, "prompt.length", "prompt.method")
        if initializer is not None and initializer != AXES["initializer"].build(preset.initializer):
            rule = f"be left out with `{_FIELD}`, since rows start as that run's"
            yield broken(rule, initializer, "prompt.initializer", _FIELD)
        if source.digest is None:
            yield from _folder_problems(Path(source.folder))
    if initializer is not None and _lacks_digest(initializer):
        path = initializer.options[ROWS_FILE]
        field, what = f"prompt.initializer.{ROWS_FILE}", "a prompt file or a run folder"
        yield from _file_problems(field, what, path, rows_file)


def _lacks_digest(initializer: Component) -> bool:
    """Return whether an initializer names a file without its digest."""
    options = initializer.options
    return {ROWS_FILE, ROWS_DIGEST} <= options.keys() and options[ROWS_DIGEST] is None


def _file_problems(
    field: str, what: str, path: str, find: Callable[[str], Path] = Path
) -> Iterator[Problem]:
    """Find out whether a file that a field names can be read."""
    try:
        file_digest(find(path))
    except (OSError, ValueError) as error:  # such as a name that no file may have
        text = f"`{field}` must be {what}, but {show(path)} cannot be read: {_reason(error)}."
        yield Problem((field,), text)


def _folder_problems(folder: Path) -> Iterator[Problem]:
    """Find out whether a folder holds a finished run."""
    try:
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if not missing:
            digest_of(folder)
            return
        reason = f"has no {missing[0]}"
    except (OSError, ValueError) as error:
        reason = f"cannot be read: {_reason(error)}"
    text = f"`{_FIELD}` must be the folder of a finished run, but {show(str(folder))} {reason}."
    yield Problem((_FIELD,), text)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def with_pinned_rows(initializer: Component) -> Component:
    """Return an initializer with the digest of its file, where it has a file."""
    if not _lacks_digest(initializer):
        return initializer
    digest = file_digest(rows_file(initializer.options[ROWS_FILE]))
    return initializer.model_copy(update={ROWS_DIGEST: digest})


def without_source(prompt: PromptConfig) -> PromptConfig:
    """Return a prompt whose rows start from no file, for where they are loaded anyway."""
    return prompt.model_copy(update={"initializer": AXES["initializer"].build("vocabulary")})


def pinned(source: SourceConfig | None) -> SourceConfig | None:
    """Return the source with its digest, read from its folder where a recipe leaves it open."""
    if source is None or source.digest is not None:
        return source
    return source.model_copy(update={"digest": digest_of(Path(source.folder))})


def digest_of(folder: Path) -> str:
    """Return a fingerprint of what a run has trained: its `prompt.safetensors`; or `OSError`."""
    return file_digest(folder / PROMPT_FILE)


def num_rows_of(folder: Path) -> int:
    """Return the number of rows that a run has trained, `NUM_ROWS` where its file holds none."""
    path = folder / PROMPT_FILE
    tensors = read_tensors(path)[0] if path.is_file() else {}
    return len(tensors["rows"]) if "rows" in tensors else NUM_ROWS


def word_vector_problems(regularizers: Sequence[Component]) -> Iterator[Problem]:
    """Find what is wrong with the files of word vectors that perturbations name."""
    for number, options in _with_word_vectors(regularizers):
        field = f"regularizers.{number}.perturbation.{WORD_VECTORS}"
        path, digest = options[WORD_VECTORS], options[WORD_VECTORS_DIGEST]
        if path is None:
            yield broken(f"be left out without `{WORD_VECTORS}`", digest, f"{field}_digest")
        elif digest is None:
            yield from _file_problems(field, "a file", path)


def with_pinned_vectors(regularizers: Sequence[Component]) -> list[Component]:
    """Return regularizers whose files of word vectors have their digests."""
    found = list(regularizers)
    for number, options in _with_word_vectors(regularizers):
        if options[WORD_VECTORS_DIGEST] is None:
            digest = file_digest(Path(options[WORD_VECTORS]))
            perturbation = {**options, WORD_VECTORS_DIGEST: digest}
            found[number] = found[number].model_copy(update={"perturbation": perturbation})
    return found


def _with_word_vectors(regularizers: Sequence[Component]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the perturbation of each regularizer that names word vectors."""
    for number, regularizer in enumerate(regularizers):
        perturbation = regularizer.options.get("perturbation") or {}
        if {perturbation.get(WORD_VECTORS), perturbation.get(WORD_VECTORS_DIGEST)} != {None}:
            yield number, perturbation
