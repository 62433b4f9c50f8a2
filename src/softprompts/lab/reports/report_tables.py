"""The tables of a report: what the page shows, and what CSV and LaTeX have."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from softprompts.lab.analysis.study_statistics import without_task
from softprompts.lab.reports.study_record import Entry, StudyRecord, shown
from softprompts.lab.reports.tabular import Column, Table

Row = dict[str, Any]

_STATISTICS = (
    Column("score", "mean ± std", "score", ("mean", "std")),
    Column("interval", "95 % interval of the mean", "range", ("interval_low", "interval_high")),
    Column("min", "min", "percent"),
    Column("max", "max", "percent"),
    Column("median", "median", "percent"),
    Column("interquartile_mean", "interquartile mean", "percent", is_shown=False),
)


def score_table(record: StudyRecord) -> Table:
    """Return the scores of every variant, task and grid point.

    Args:
        record: the study.
    """
    columns = (
        *place_columns(record),
        *_STATISTICS,
        Column("majority", "majority", "percent"),
        Column("metric", "metric"),
        Column("num_items", "items", "count"),
        Column("split", "split", is_shown=False),
        Column("seeds", "seeds"),
        Column("num_scored", "scored", "count", is_shown=False),
        Column("num_seeds", "planned", "count", is_shown=False),
        Column("num_diverged", "diverged", "count", is_shown=False),
        Column("num_failed", "failed", "count", is_shown=False),
        Column("num_missing", "not run", "count", is_shown=False),
    )
    rows = tuple(_score_row(record, entry) for entry in record.entries)
    note = (
        "Scores in percent, mean and standard deviation over the seeds that finished. The interval "
        "is Student's."
    )
    return Table("scores", "Scores", columns, rows, note)


def average_table(record: StudyRecord) -> Table:
    """Return the means over tasks; without rows where there is one task.

    Args:
        record: the study.
    """
    columns = (
        Column("variant", "variant"),
        *_fields(record),
        Column("tasks", "tasks"),
        *_STATISTICS[:4],
        Column("benchmark", "benchmark"),
        Column("num_seeds", "seeds", "count"),
    )
    rows = []
    for one in record.summary["averages"]:
        spread = one["over_seeds"]
        rows.append(
            {
                **_point(record, one["point"]),
                "variant": one["variant"],
                "tasks": ", ".join(one["tasks"]),
                **_spread(spread),
                "benchmark": one["benchmark"],
                "num_seeds": len(one["seeds"]),
            }
        )
    note = "Each task weighs the same; a seed counts where every task has its score."
    return Table("averages", "Means over tasks", columns, tuple(rows), note)


def comparison_table(record: StudyRecord) -> Table:
    """Return every comparison with the baseline.

    Args:
        record: the study.
    """
    columns = (
        Column("variant", "variant"),
        Column("baseline", "baseline"),
        Column("tasks", "task"),
        *_fields(record),
        Column("num_pairs", "pairs", "count"),
        Column("difference", "difference", "points"),
        Column("interval", "95 % interval", "difference", ("interval_low", "interval_high")),
        Column(
            "interval_with_items",
            "with other items",
            "difference",
            ("items_low", "items_high"),
        ),
        Column("p", "p", "p", is_shown=False),
        Column("p_adjusted", "p corrected", "p"),
        Column("smallest_p", "smallest p", "p", is_shown=False),
        Column("std_ratio", "ratio of std", "number"),
        Column("std_ratio_interval", "95 % interval of it", "ratios", ("ratio_low", "ratio_high")),
        Column("p_spread", "p of spread", "p", is_shown=False),
        Column("p_spread_adjusted", "p of spread, corrected", "p"),
        Column("improvement", "beats the baseline", "percent"),
        Column("detectable", "detectable", "percent"),
    )
    rows = tuple(_comparison_row(record, one) for one in record.summary["comparisons"])
    note = (
        "Differences in points of a percent, over paired seeds. Corrected by Holm. Detectable: the "
        "difference that a t-test would find in 80 % of such studies."
    )
    return Table("comparisons", f"Against {record.baseline}", columns, rows, note)


def cost_table(record: StudyRecord) -> Table:
    """Return time and memory of every variant, task and grid point.

    Args:
        record: the study.
    """
    columns = (
        *place_columns(record),
        Column("num_runs", "runs", "count"),
        Column("updates", "updates", "count"),
        Column("trainable_parameters", "trained numbers", "count"),
        Column("seconds", "seconds a run", "number"),
        Column("total_seconds", "seconds in all", "number"),
        Column("examples_per_second", "examples / s", "number"),
        Column("peak_mib", "peak MiB", "number"),
        Column("peak_bytes", "peak bytes", "count", is_shown=False),
    )
    rows = tuple(_cost_row(record, entry) for entry in record.whole_entries)
    note = (
        "Means over runs. The seconds of runs that trained side by side are shares of what the "
        "pack took. The peak is the highest so far of the whole process, and of what else it did."
    )
    return Table("cost", "Time and memory", columns, rows, note)


def run_table(record: StudyRecord) -> Table:
    """Return every run with its state.

    Args:
        record: the study.
    """
    columns = (
        *place_columns(record),
        Column("seed", "seed", "count"),
        Column("identity", "run"),
        Column("status", "status"),
        Column("score", "score", "percent"),
        Column("last_score", "last", "percent"),
        Column("held_out_score", "held out", "percent"),
        Column("selected_step", "selected", "count"),
        Column("seconds", "seconds", "number"),
        Column("peak_bytes", "peak bytes", "count", is_shown=False),
        Column("reason", "reason", "long"),
    )
    rows = tuple(
        _run_row(record, entry, number)
        for entry in record.whole_entries
        for number in range(entry.num_seeds)
    )
    return Table("runs", "Runs", columns, rows)


def lost_table(record: StudyRecord) -> Table:
    """Return the runs that failed or diverged, with the reason.

    Args:
        record: the study.
    """
    whole = run_table(record)
    lost = tuple(row for row in whole.rows if row["status"] in ("failed", "diverged"))
    kept = tuple(c for c in whole.columns if c.key not in ("selected_step", "held_out_score"))
    return Table("lost-runs", "Runs that failed or diverged", kept, lost)


def place_columns(record: StudyRecord) -> tuple[Column, ...]:
    """Return the columns that say where a row belongs: task, variant, and fields of the grid."""
    return (Column("task", "task"), Column("variant", "variant"), *_fields(record))


def _fields(record: StudyRecord) -> tuple[Column, ...]:
    return tuple(Column(f"field {name}", name) for name in record.fields)


def _point(record: StudyRecord, point: Mapping[str, Any]) -> Row:
    rest = without_task(point)
    return {f"field {name}": shown(rest[name]) for name in record.fields if name in rest}


def place_of(record: StudyRecord, entry: Entry) -> Row:
    """Return the values of `place_columns` for an entry."""
    task = f"{entry.task} (within {entry.part_of})" if entry.part_of else entry.task
    return {"task": task, "variant": entry.variant, **_point(record, entry.line["point"])}


def _spread(line: Mapping[str, Any]) -> Row:
    interval = line.get("interval")
    return {
        "score": (line["mean"], line["std"]),
        "interval": None if interval is None else tuple(interval),
        **{key: line.get(key) for key in ("min", "max", "median", "interquartile_mean")},
    }


def _score_row(record: StudyRecord, entry: Entry) -> Row:
    line = entry.line
    kept = ("majority", "metric", "num_items", "split", "num_diverged", "num_failed", "num_missing")
    return {
        **place_of(record, entry),
        **_spread(line),
        **{key: line[key] for key in kept},
        "seeds": seeds_of(entry),
        "num_scored": entry.num_scored,
        "num_seeds": entry.num_seeds,
    }


def seeds_of(entry: Entry) -> str:
    """Return how many of how many seeds have a score.

    Args:
        entry: a variant on a task.

    """
    whole = entry.num_scored == entry.num_seeds
    return str(entry.num_seeds) if whole else f"{entry.num_scored} of {entry.num_seeds}"


def _comparison_row(record: StudyRecord, one: Mapping[str, Any]) -> Row:
    pairs = ("interval", "interval_with_items", "std_ratio_interval")
    plain = (
        "variant", "baseline", "num_pairs", "difference", "p", "p_adjusted", "smallest_p",
        "std_ratio", "p_spread", "p_spread_adjusted", "improvement", "detectable",
    )  # fmt: skip
    return {
        **{key: one[key] for key in plain},
        **{key: None if one[key] is None else tuple(one[key]) for key in pairs},
        **_point(record, one["point"]),
        "tasks": ", ".join(one["tasks"]),
    }


def _cost_row(record: StudyRecord, entry: Entry) -> Row:
    found = [record.results[c.identity] for c in entry.cells if c.identity in record.results]

    def mean(key: str) -> float | None:
        values = [r[key] for r in found if r.get(key) is not None]
        return fmean(values) if values else None

    peak = max((r["peak_bytes"] for r in found if r.get("peak_bytes")), default=None)
    return {
        **place_of(record, entry),
        "num_runs": len(found),
        "updates": max((r["steps"] for r in found), default=None),
        "trainable_parameters": entry.line["trainable_parameters"],
        "seconds": mean("seconds"),
        "total_seconds": entry.line["seconds"] if found else None,
        "examples_per_second": mean("examples_per_second"),
        "peak_mib": None if peak is None else peak / 2**20,
        "peak_bytes": peak,
    }


def _run_row(record: StudyRecord, entry: Entry, number: int) -> Row:
    cell = entry.cells[number]
    result = record.results.get(cell.identity)
    row = {
        **place_of(record, entry),
        "seed": cell.config.seed,
        "identity": cell.identity,
        "status": "failed" if cell.identity in record.errors else "not finished",
        "reason": record.errors.get(cell.identity),
    }
    if result is None:
        return row
    kept = ("status", "last_score", "held_out_score", "selected_step", "seconds", "peak_bytes")
    is_scored = result["status"] == "finished"
    return {
        **row,
        **{key: result.get(key) for key in kept},
        "score": result["score"] if is_scored else None,
        "last_score": result["last_score"] if is_scored else None,
        "reason": reason_of(result),
    }


def reason_of(result: Mapping[str, Any]) -> str | None:
    """Return why a run diverged, in words.

    Args:
        result: content of `result.json`.
    """
    found = result.get("divergence")
    if not found:
        return None
    if isinstance(found, Mapping):
        return ", ".join(f"{key} {shown(value)}" for key, value in found.items())
    return str(found)
