"""Files of word vectors, as they are published: a word and its numbers on each line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from softprompts.errors import DataError, StorageError
from softprompts.storage import open_file


def read_word_vectors(path: Path, wanted: Collection[str]) -> tuple[dict[str, int], Tensor]:
    """Read the vectors of some words.

    Every line is `word number number ...`, parted by spaces, and all are as wide. A first line of
    two whole numbers, as word2vec writes it, says how many words and numbers there are. Every line
    is checked, and the vectors of wanted words are kept.

    The file is UTF-8 text, packed by gzip where its name ends in `.gz`. Returns the place of each
    wanted word that it has, and the vectors, float32. Shape `(words, width)`.
    """
    seen: dict[str, int] = {}
    places: dict[str, int] = {}
    vectors: list[np.ndarray] = []
    width = 0
    for number, line in _lines(path):
        word, *numbers = line.split()
        if number == 1 and len(numbers) == 1 and word.isdigit() and numbers[0].isdigit():
            continue
        if word in seen:
            reason = f"the word must be new, but {word!r} is on line {seen[word]} too."
            raise DataError(reason, file=path, line=number)
        seen[word] = number
        vector, reason = _vector(numbers, width)
        if reason:
            raise DataError(reason, file=path, line=number)
        width = len(vector)
        if word in wanted:
            places[word] = len(vectors)
            vectors.append(vector)
    stacked = np.stack(vectors) if vectors else np.zeros((0, width), dtype=np.float32)
    return places, torch.from_numpy(stacked)


def _vector(numbers: list[str], width: int) -> tuple[np.ndarray, str]:
    """Return the numbers of a line, float32, and what is wrong with them, or ""."""
    try:
        with np.errstate(over="ignore"):  # said below
            vector = np.array(numbers, dtype=np.float32)
    except ValueError:
        wrong = next((one for one in numbers if not _is_number(one)), numbers[0])
        return np.zeros(0), f"the line must be a word and its numbers, but has {wrong!r}."
    if not len(vector):
        return vector, "the line must be a word and its numbers, but has no number."
    if width and len(vector) != width:
        reason = f"the vector must have {width} numbers, as those before it, but has {len(vector)}."
        return vector, reason
    if not np.isfinite(vector).all():
        wrong = numbers[int(np.argmin(np.isfinite(vector)))]
        return vector, f"numbers must be finite in float32, but one is {wrong!r}."
    return vector, ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers."""
    number = 1
    try:
        with open_file(path) as raw:
            file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        reason = f"the line must be UTF-8, but has byte {error.object[error.start]:#x}."
        raise DataError(reason, file=path, line=number) from error
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise StorageError(f"{path} could not be read: {said}.") from error
