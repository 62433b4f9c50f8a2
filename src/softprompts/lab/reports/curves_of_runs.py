"""Learning curves of several seeds: windows of updates, their mean over seeds, and its band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import final

from softprompts.lab.reports.records import read_lines

MOST_WINDOWS = 40
"""Most windows that the updates of a run are put into."""

Points = Mapping[int, float]
"""Values by the number of an update."""


@final
@dataclass(frozen=True)
class Curve:
    """A value over the updates, for several seeds.

    Attributes:
        steps: the last update of each window or its middle, or the update of an evaluation.
        means: the mean over seeds.
        lows: the lowest seed.
        highs: the highest seed.
        counts: how many seeds got there.
    """

    steps: tuple[float, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    counts: tuple[int, ...]


def read_curves(folder: Path) -> tuple[Points, Points]:
    """Read what a run logged so far.

    Args:
        folder: the run's folder; one that is not there yet has logged nothing.

    Returns:
        Training losses, but those that are not finite; and scores on held-out rows.

    Raises:
        StorageError: if its records are broken.
    """
    losses: dict[int, float] = {}
    scores: dict[int, float] = {}
    for _, record in read_lines(folder / "metrics.jsonl")[0]:
        step = record.get("step")
        is_score = record.get("split") == "held_out"
        value = record.get("score" if is_score else "loss")
        is_number = isinstance(value, int | float) and math.isfinite(value)
        if isinstance(step, int) and is_number and (is_score or "split" not in record):
            (scores if is_score else losses)[step] = float(value or 0.0)
    return losses, scores


def curve_of(runs: Sequence[Points], most_windows: int = MOST_WINDOWS) -> Curve | None:
    """Return the curve of several seeds.

    Updates are put into windows of one size, so that at most `most_windows` are left; a value is
    the mean of its window. A seed that ended early counts as far as it went.

    Args:
        runs: values of each seed.
        most_windows: most points of the curve.

    Returns:
        The curve, or `None` without values.
    """
    last = max((max(run) for run in runs if run), default=0)
    if not last:
        return None
    steps = sorted({step for run in runs for step in run})
    size = math.ceil(len(steps) / most_windows)
    windows = [steps[start : start + size] for start in range(0, len(steps), size)]
    rows = []
    for window in windows:
        held = [[run[step] for step in window if step in run] for run in runs]
        values = [fmean(found) for found in held if found]
        rows.append((window[-1], fmean(values), min(values), max(values), len(values)))
    return Curve(*map(tuple, zip(*rows, strict=True)))


def curves_of(folders: Sequence[Path]) -> tuple[Curve | None, Curve | None]:
    """Return the curves of the training loss and of the held-out score.

    Args:
        folders: run folders, one per seed.
    """
    losses, scores = zip(*map(read_curves, folders), strict=True)
    is_curve = max(map(len, scores)) > 1
    return curve_of(losses), curve_of(scores) if is_curve else None
