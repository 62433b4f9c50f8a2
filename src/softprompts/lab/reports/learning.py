"""Which variants were still learning their training rows when their updates ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

from softprompts.errors import StorageError
from softprompts.lab.analysis.study_statistics import point_words
from softprompts.lab.reports.records import read_curves
from softprompts.lab.studies.summary import grouped, read_cell, run_folder
from softprompts.recipes.grid import Cell

_FEWEST = 20
"""Updates below which a fifth of them says too little."""

_LEFT, _FALL = 0.1, 0.1
"""What is left of the first loss, and what of it still went, where learning has not ended."""

_ERRORS = 2.0
"""Standard errors over seeds that a fall must be of, to be one."""

_MOST_NAMED = 4


def still_learning(cells: Sequence[Cell], folder: Path) -> list[str]:
    """Say which variants were still learning when their updates ended, in one text or none.

    They are those whose mean training loss in the last fifth of their updates is above a tenth of
    that in the first, and a tenth below that in the fourth: by more than two standard errors over
    seeds, of which there must be two. Runs that diverged, may stop early or have broken records
    tell nothing; a report, which shows their curves, says what is broken.

    Args:
        cells: the runs of a study.
        folder: the study's folder.
    """
    found = []
    for group in grouped(cells):
        runs = [run for cell in group if (run := _fifths(cell, folder)) is not None]
        if len(runs) > 1 and _is_learning(runs):
            before, last = (fmean(run[place] for run in runs) for place in (3, 4))
            one = group[0]
            name = f"{one.variant} {point_words(one.point)}".strip()
            found.append(f"{name} on {one.task} ({before:.2f}, then {last:.2f})")
    if not found:
        return []
    named, more = found[:_MOST_NAMED], found[_MOST_NAMED:]
    listed = ", ".join([*named, *[f"and {len(more)} more"] * bool(more)])
    return [
        f"still learning when the updates ended: {listed}, by the training loss in the last two "
        "fifths of them; more updates could help"
    ]


def _fifths(cell: Cell, folder: Path) -> Sequence[float] | None:
    """Return a run's mean training loss in each fifth of its updates, where that tells."""
    result = read_cell(folder, cell)
    if result is None or result["status"] != "finished" or cell.config.training.patience:
        return None
    try:
        losses, _ = read_curves(run_folder(folder, cell))
    except StorageError:
        return None
    if len(losses) < _FEWEST:
        return None
    values = [losses[step] for step in sorted(losses)]
    ends = [len(values) * fifth // 5 for fifth in range(6)]
    return [fmean(values[start:end]) for start, end in pairwise(ends)]


def _is_learning(runs: Sequence[Sequence[float]]) -> bool:
    first, _, _, before, last = map(fmean, zip(*runs, strict=True))
    falls = [run[3] - run[4] for run in runs]
    error = stdev(falls) / math.sqrt(len(falls))
    return last > _LEFT * first and before - last > max(_FALL * before, _ERRORS * error)
