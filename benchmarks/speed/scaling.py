"""Section `scaling`: how the speed of training changes with one size at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .case import Case, Ready, Scope, Workplace
from .contestants import Contestant, Ours
from .race import Lap, Race, ratios

PACK_BATCH = 4
"""Examples per run and update in packs: few enough that one run alone does not fill a processor."""


def measure(place: Workplace, scope: Scope) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield figures by curve: a list of points each."""
    if not scope.is_quick and (reason := place.lacks("rte")):
        yield from ((curve, {"skipped": reason}) for curve in CURVES if scope.has(curve))
        return
    is_quick = scope.is_quick
    base = Case("tiny-bert", "bundled", num_examples=64) if is_quick else Case("minilm", "rte")
    num_rounds = scope.rounds(1 if is_quick else 6)
    for curve, (sizes, point) in CURVES.items():
        if scope.has(curve):
            chosen = sizes[:2] if is_quick else sizes
            yield curve, {"points": [point(size, base, place, num_rounds) for size in chosen]}


def _batch(size: int, base: Case, place: Workplace, num_rounds: int) -> dict[str, Any]:
    return _point(size, Ready(replace(base, batch_size=size), place), num_rounds)


def _rows(size: int, base: Case, place: Workplace, num_rounds: int) -> dict[str, Any]:
    return _point(size, Ready(replace(base, length=size), place), num_rounds)


def _length(size: int, base: Case, place: Workplace, num_rounds: int) -> dict[str, Any]:
    rows = place.long_rows(base.rows, size)
    return _point(size, Ready(replace(base, rows=rows, max_tokens=size), place), num_rounds)


def _point(size: int, ready: Ready, num_rounds: int) -> dict[str, Any]:
    """Return the speeds at one size."""
    laps = ready.race("peft, best", [ready.ours, ready.bare()], num_rounds)
    return {
        "size": size,
        "contestants": {name: ready.figures(lap) for name, lap in laps.items()},
        "ratios": {n: ratios(laps["softprompts"], laps[n]) for n in laps if n != "softprompts"},
    }


def _pack(size: int, base: Case, place: Workplace, num_rounds: int) -> dict[str, Any]:
    """Return the speed of runs in one pack, against as many updates of a run alone."""
    ready = Ready(replace(base, batch_size=PACK_BATCH), place)
    members = [ready.case.member(place, seed) for seed in range(1, size + 1)]
    alone, pack = _Often(ready.ours, size), Ours(ready.backbone, members, "pack")
    laps = Race([pack, alone], num_rounds).run()
    return {
        "size": size,
        "batch_size": PACK_BATCH,
        "contestants": {name: ready.figures(lap) for name, lap in laps.items()},
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


CURVES = {
    "batch": ((1, 4, 16, 64), _batch),
    "prompt length": ((1, 10, 30, 100), _rows),
    "length": ((16, 32, 64, 128, 256), _length),
    "runs in a pack": ((1, 2, 4, 8, 16), _pack),
    "examples": ((32, 250, 1000, 2490), _examples),
}
"""Curves by name: sizes, and what measures one."""
