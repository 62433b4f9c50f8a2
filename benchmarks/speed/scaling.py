"""Section `scaling`: how the speed of training changes with one size at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .case import Case, Ready, Workplace
from .contestants import Contestant, Ours
from .machine import matrix_rate
from .race import Lap, Race, ratios

LENGTHS = (16, 32, 64, 128, 256)
BATCHES = (1, 4, 16, 64)
ROWS = (1, 10, 30, 100)
PACKS = (1, 2, 4, 8, 16)
EXAMPLES = (32, 250, 1000, 2490)
PACK_BATCH = 4
"""Examples per run and update in packs: few enough that one run alone does not fill a processor."""


def measure(place: Workplace, is_quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield figures by curve: a list of points each."""
    if not is_quick and (reason := place.lacks("rte")):
        yield "all", {"skipped": reason}
        return
    base = Case("tiny-bert", "bundled", num_examples=64) if is_quick else Case("minilm", "rte")
    num_rounds = 1 if is_quick else 6
    cut = slice(0, 2) if is_quick else slice(None)
    cases = {
        "batch": [(size, replace(base, batch_size=size)) for size in BATCHES[cut]],
        "prompt length": [(size, replace(base, length=size)) for size in ROWS[cut]],
        "length": [
            (size, replace(base, rows=place.long_rows(base.rows, size), max_tokens=size))
            for size in LENGTHS[cut]
        ],
    }
    for curve, points in cases.items():
        yield curve, {"points": [_point(size, Ready(c, place), num_rounds) for size, c in points]}
    packs = [_pack(size, base, place, num_rounds) for size in PACKS[cut]]
    yield "runs in a pack", {"batch_size": PACK_BATCH, "points": packs}
    counts = [size for size in EXAMPLES[cut] if is_quick or size <= len(place.rows("rte").examples)]
    yield "examples", {"points": [_examples(size, base, place, num_rounds) for size in counts]}


def _point(size: int, ready: Ready, num_rounds: int) -> dict[str, Any]:
    """Return the speeds at one size."""
    limit = matrix_rate(ready.backbone.dtype, num_tries=4)
    laps = ready.race("peft, best", [ready.ours, ready.bare()], num_rounds)
    return {
        "size": size,
        "contestants": {name: ready.figures(lap, limit) for name, lap in laps.items()},
        "ratios": {n: ratios(laps["softprompts"], laps[n]) for n in laps if n != "softprompts"},
    }


def _pack(size: int, base: Case, place: Workplace, num_rounds: int) -> dict[str, Any]:
    """Return the speed of runs in one pack, against as many updates of a run alone."""
    ready = Ready(replace(base, batch_size=PACK_BATCH), place)
    members = [ready.case.member(place, seed) for seed in range(1, size + 1)]
    alone, pack = _Often(ready.ours, size), Ours(ready.backbone, members, "pack")
    laps = Race([pack, alone], num_rounds).run()
    limit = matrix_rate(ready.backbone.dtype, num_tries=4)
    return {
        "size": size,
        "contestants": {name: ready.figures(lap, limit) for name, lap in laps.items()},
        "ratios": {"one by one": ratios(laps["pack"], laps["one by one"])},
    }


class _Often(Contestant):
    """Several updates of one run, one after the other."""

    name = "one by one"

    def __init__(self, ours: Ours, count: int) -> None:
        self._ours, self._count = ours, count

    def step(self) -> int:
        """Do all of them."""
        return sum(self._ours.step() for _ in range(self._count))


def _examples(size: int, base: Case, place: Workplace, num_rounds: int) -> dict[str, Any]:
    """Return what a number of training rows costs before the first update, and per update."""
    case = replace(base, num_examples=size)
    began = time.perf_counter()
    member = case.member(place)
    seconds = time.perf_counter() - began
    ours = Ours(place.backbone(case.model, case.rows), [member])
    lap: Lap = Race([ours], num_rounds).run()[ours.name]
    return {
        "size": size,
        "encoding_seconds": round(seconds, 3),
        "median_milliseconds": lap.median_milliseconds,
    }
