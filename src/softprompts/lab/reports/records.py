"""What runs write down: records line by line, the curves of several seeds, and perturbed inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final, final

from softprompts.errors import StorageError
from softprompts.problems import show
from softprompts.storage import is_there, parse_json, read_file, reporting


def read_lines(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
    """Read the records of a run, each with its place; a missing `metrics.jsonl` has none.

    Returns:
        The records, and whether the last line was half written and left out.

    Raises:
        StorageError: if it cannot be read, or a whole line is no JSON object.
    """
    if not is_there(path):
        return [], False
    try:
        *whole, rest = _content(path).decode().split("\n")
    except ValueError as error:
        raise StorageError(f"{path} must be UTF-8, but is not: {error}.") from error
    found = []
    for number, line in enumerate(whole, start=1):
        place = f"{path}:{number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            raise StorageError(f"{place} must be JSON, but is not: {error}.") from error
        require(isinstance(record, dict), place, "the line", "a JSON object", record)
        found.append((place, record))
    return found, bool(rest)


def _content(path: Path) -> bytes:
    with reporting(path, "read"):
        return read_file(path)


def require(is_right: bool, place: str, name: str, wanted: str, found: Any) -> None:
    """Refuse a record that is not as it must be; `place` is its file and line.

    Raises:
        StorageError: if it is not right.
    """
    if not is_right:
        raise StorageError(f"{place}: {name} must be {wanted}, but is {show(found)}.")


EXAMPLES: Final = "examples.txt"
_BEFORE, _AFTER = "  before: ", "  after:  "


@final
@dataclass(frozen=True)
class Example:
    """One input of one update, before and after words were replaced: those in brackets."""

    heading: str
    before: str
    after: str


def read_examples(folder: Path, most: int) -> tuple[Example, ...]:
    """Read the last inputs that a run wrote down, if it did; a half-written one is left out.

    Raises:
        StorageError: if the file cannot be read.
    """
    path = folder / EXAMPLES
    if not is_there(path):
        return ()
    found = []
    for block in _content(path).decode(errors="replace").split("\n\n"):
        lines = block.split("\n")
        before = next((line for line in lines if line.startswith(_BEFORE)), None)
        after = next((line for line in lines if line.startswith(_AFTER)), None)
        if before is not None and after is not None:
            found.append(Example(lines[0], before[len(_BEFORE) :], after[len(_AFTER) :]))
    return tuple(found[-most:])


MOST_WINDOWS = 40
"""Most windows that the updates of a run are put into."""

Points = Mapping[int, float]
"""Values by the number of an update."""


@final
@dataclass(frozen=True)
class Curve:
    """A value over the updates: mean, lowest and highest seed.

    Attributes:
        steps: the last update of each window, or the update of an evaluation.
        counts: how many seeds got there.
    """

    steps: tuple[float, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    counts: tuple[int, ...]


def read_curves(folder: Path) -> tuple[Points, Points]:
    """Read finite training losses and scores on held-out rows, as far as a run logged them.

    Raises:
        StorageError: if its records are broken.
    """
    losses: dict[int, float] = {}
    scores: dict[int, float] = {}
    for _, record in read_lines(folder / "metrics.jsonl")[0]:
        step = record.get("step")
        is_score = record.get("split") == "held_out"
        value = record.get("score" if is_score else "loss")
        is_finite = isinstance(value, int | float) and math.isfinite(value)
        if isinstance(step, int) and is_finite and (is_score or "split" not in record):
            (scores if is_score else losses)[step] = float(value or 0.0)
    return losses, scores


def curve_of(runs: Sequence[Points], most_windows: int = MOST_WINDOWS) -> Curve | None:
    """Return the curve of several seeds; `None` without values.

    Updates are put into windows of one size, so that at most `most_windows` are left; a value is
    the mean of its window. A seed that ended early counts as far as it went.
    """
    steps = sorted({step for run in runs for step in run})
    if not any(steps):
        return None
    size = math.ceil(len(steps) / most_windows)
    windows = [steps[start : start + size] for start in range(0, len(steps), size)]
    rows = []
    for window in windows:
        held = [[run[step] for step in window if step in run] for run in runs]
        values = [fmean(found) for found in held if found]
        rows.append((window[-1], fmean(values), min(values), max(values), len(values)))
    return Curve(*map(tuple, zip(*rows, strict=True)))


def curves_of(folders: Sequence[Path]) -> tuple[Curve | None, Curve | None]:
    """Return the curves of the training loss and of the held-out score."""
    losses, scores = zip(*map(read_curves, folders), strict=True)
    is_curve = max(map(len, scores)) > 1
    return curve_of(losses), curve_of(scores) if is_curve else None
