"""What to do after a study, in lines of a terminal: what was seen, what to take, how to use it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompts.lab.analysis.leading import (
    Beside,
    Lines,
    closest,
    mean_of,
    name_of,
    ranked,
    spread_of,
    steadier,
)
from softprompts.lab.analysis.permutations import Looks
from softprompts.lab.analysis.study_statistics import variant_words
from softprompts.lab.reports.findings import main_comparisons
from softprompts.recipes.checks import is_trained
from softprompts.recipes.grid import Cell
from softprompts.recipes.study_size import RATE, needed_seeds


def verdicts(summary: Mapping[str, Any]) -> list[str]:
    """Return a line per variant: its difference from the baseline, and whether it is shown."""
    return list(map(_verdict, main_comparisons(summary)))


def _verdict(one: Mapping[str, Any]) -> str:
    name = variant_words(one)
    if one["difference"] is None:
        return f"{name}: no seed finished here and in {one['baseline']}"
    said = f"{name}: {100 * one['difference']:+.1f} against {one['baseline']}"
    if one["interval"] is None:
        return f"{said}, of one seed"
    low, high = (f"{100 * end:+.1f}" for end in one["interval"])
    if one["p_adjusted"] <= RATE:
        how = "shown"
    elif one["is_conclusive"]:
        how = "not shown"
    else:
        seeds = math.ceil(needed_seeds(one["num_tests"]) / len(one["tasks"]))
        are_there = seeds <= min(one["num_seeds"].values())
        how = f"not shown: {'more' if are_there else seeds} seeds could"
    some = "; some runs left out" if one["left_out"] else ""
    return f"{said} ({low} to {high}), p = {one['p_adjusted']:.2g}, {how}{some}"


def advice(summary: Mapping[str, Any], cells: Sequence[Cell], folder: Path) -> list[str]:
    """Return what to take and how sure that is, the commands that use it, and one that adds seeds.

    The first of `ranked` is taken, `closest` says how sure it is that it is the best, and
    `steadier` which other one is level with it and spreads less.

    Returns:
        The advice, then one command per line, for the first task; nothing where there is nothing
        to advise.
    """
    order = ranked(summary["cells"])
    if not order:
        return []
    best = order[0]
    first, mean = best[0], mean_of(best)
    interval = _interval(summary, best)
    score = _score(best, interval)
    known = all(line["majority"] is not None for line in best)
    if known and mean <= (majority := mean_of(best, "majority")):
        beside = f"{100 * majority:.1f}"
        return [f"take none: the best, {name_of(first)}, scores {score}, the majority {beside}"]
    seen = summary.get("looks")
    lead = None if seen else closest(order)
    sure = seen["said"] if seen else "" if lead is None else _sure(lead)
    level = [own for own in order[1:] if round(mean_of(own), 3) == round(mean, 3)]
    if level and not seen:
        calmer = all(spread_of(own) > spread_of(best) for own in level)
        names = ", ".join(name_of(own[0]) for own in level)
        sure = f"as high as {names}{', and spreads less here' * calmer}"
    calm = _calm(order, interval, seen)
    run, config = next(
        (folder / "runs" / cell.identity, cell.config)
        for cell in cells
        if (cell.variant, cell.point) == (first["variant"], first["point"])
    )
    place = shlex.quote(str(run))
    on = f"  # {first['task']}" if len(best) > 1 else ""
    commands = [f"softprompts predict {place} --input rows.jsonl --output answers.jsonl{on}"]
    parts = (config.readout, config.prompt.depth, config.adaptation)
    reads, depth, adapted = (getattr(part, "kind", "none") for part in parts)
    if is_trained(config) and adapted == "none" and reads != "linear":
        to = "peft" if depth == "every-layer" else "vocabulary"
        commands.append(f"softprompts export {place} --to {to} --out model")
    if lead is not None and lead.p is not None and lead.p > RATE:
        kept, own = (shlex.quote(str(path)) for path in (folder / "study.json", folder))
        commands.append(f"softprompts study {kept} --out {own} --seeds auto")
    return ["; ".join(filter(None, [f"take {name_of(first)}: {score}", sure, calm])), *commands]


def _score(best: Lines, interval: Sequence[float] | None) -> str:
    """Return the leader's mean, its spread, and its interval within 0 to 100 where there is one."""
    said = f"{100 * mean_of(best):.1f}"
    if best[0]["std"] is not None:
        said += f" ± {100 * spread_of(best):.1f}"
    if len(best) > 1:
        said += f" over {len(best)} tasks"
    if interval is not None:
        low, high = 100 * max(interval[0], 0.0), 100 * min(interval[1], 1.0)
        said += f" (95 % interval {low:.1f} to {high:.1f})"
    return said


def _sure(lead: Beside) -> str:
    if lead.p is None:
        return f"not compared with {lead.other}: no seed in common"
    if lead.p <= RATE:
        return f"shown to beat {lead.whom} (p = {lead.p:.2g})"
    more = math.ceil(needed_seeds(1) * lead.num_seeds / lead.num_pairs) - lead.num_seeds
    tail = f"; {more} more seed{'s' * (more > 1)} could tell" if more > 0 else ""
    return f"not shown to beat {lead.other} (p = {lead.p:.2g}){tail}"


def _calm(
    order: Sequence[Lines], interval: Sequence[float] | None, seen: Mapping[str, Any] | None
) -> str:
    """Say which variant is level with the leader and spreads less, or nothing."""
    looks = None
    if seen and "after" in seen:
        seeds = dict.fromkeys(seed for line in order[0] for seed in line["seeds"])
        looks = Looks(tuple(seeds), tuple(seen["after"]), seen["most"])
    found = steadier(order, interval, looks)
    if found is None:
        return ""
    how = "spreads less here" if found.p is None else f"is shown to spread less (p = {found.p:.2g})"
    score = f"{100 * found.mean:.1f} ± {100 * found.spread:.1f}"
    return f"{found.name}, {score}, is level within error and {how}"


def _interval(summary: Mapping[str, Any], best: Lines) -> Sequence[float] | None:
    """Return the interval of the leader's mean, or `None` where there is none."""
    found: Sequence[float] | None = best[0]["interval"]
    if len(best) > 1:
        over = [one for one in summary["averages"] if name_of(one) == name_of(best[0])]
        found = over[0]["over_seeds"]["interval"] if over else None
    return None if found is None or found[0] == found[1] else found
