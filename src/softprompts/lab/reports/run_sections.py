"""The sections on how runs went: tuning, learning curves, examples, texts, time and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from softprompts.lab.reports.pages import Part, Section, side_by_side
from softprompts.lab.reports.records import Curve, curves_of, read_examples
from softprompts.lab.reports.score_sections import MOST_OPEN
from softprompts.lab.reports.study_figures import Scale, draw_curves, scale_around
from softprompts.lab.reports.study_record import (
    Entry,
    StudyRecord,
    place_columns,
    point_label,
    shown,
)
from softprompts.lab.reports.tabular import Column, Table
from softprompts.lab.studies.tuning_record import TuningRecord, read_tuning
from softprompts.recipes.grid import Cell
from softprompts.storage import entries, is_there

_MOST_EXAMPLES = 3
_MOST_CURVES = 3  # of a figure, beside the baseline
_PANELS = (("Score on held-out rows, %", 100.0, ()), ("Training loss", 1.0, (0.0,)))

Pair = tuple[Curve | None, Curve | None]
"""The curves of held-out score and training loss."""

_TUNED = (
    Column("task", "task"),
    Column("variant", "variant"),
    Column("point", "at"),
    Column("value", "chosen"),
    Column("score", "on held-out rows", "percent"),
    Column("last_rung", "last rung"),
    Column("num_diverged", "diverged", "count"),
    Column("updates", "updates", "count"),
    Column("updates_done", "updates done", "count", is_shown=False),
    Column("remark", "remark"),
)


def tuning_section(record: StudyRecord) -> Section | None:
    """Return the section on tuning; `None` where nothing was tuned here."""
    tune = record.study.tune
    if tune is not None and tune.chosen is None:
        text = "is not tuned yet: what this page shows is of the values before tuning."
        return Section("tuning", "Tuning", (Part("note", f"{tune.field} {text}"),))
    found = read_tuning(record.path, tune)
    if found is None:
        return None
    seeds = ", ".join(map(str, found.seeds))
    said = (
        f"{found.field} was chosen among {', '.join(map(shown, found.values))} by successive "
        f"halving on held-out rows, with seeds {seeds}. Every variant had the same candidates and "
        "the same number of updates. The reported rows decided nothing."
    )
    parts = [Part("text", said), Part("table", _tuning_table(found))]
    if found.untrained:
        text = f"Not tuned, since nothing is trained: {', '.join(found.untrained)}."
        parts.append(Part("note", text))
    return Section("tuning", "Tuning", parts)


def _tuning_table(found: TuningRecord) -> Table:
    rows = [
        {
            **one.model_dump(),
            "point": point_label(one.point) or None,
            "value": shown(one.value),
            "last_rung": ", ".join(shown(t.value) for t in one.rungs[-1].tried),
            "num_diverged": sum(t.num_diverged for rung in one.rungs for t in rung.tried),
            "remark": one.remark or None,
        }
        for one in found.choices
    ]
    text = "Scores are means over the seeds of tuning, in the last rung, the best first."
    return Table("tuning", f"Tuned values of {found.field}", _TUNED, rows, text)


def curve_section(record: StudyRecord) -> Section | None:
    """Return the section with learning curves; `None` before the first update."""
    curves = {}
    for entry in record.whole_entries:
        losses, scores = curves_of([record.folder(cell) for cell in entry.cells])
        curves[id(entry.cells)] = (scores, losses)
    pictures: list[Part] = []
    for task in record.tasks:
        own = [e for e in record.whole_entries if e.task == task and curves[id(e.cells)][1]]
        axes = _axes([curves[id(entry.cells)] for entry in own])
        for facet in record.facets(own):
            labelled = [(entry.label, curves[id(entry.cells)]) for entry in facet.entries]
            bases = [n for n, one in enumerate(facet.entries) if one.variant == record.baseline]
            base = labelled.pop(bases[0]) if len(bases) == 1 and len(labelled) > 1 else None
            for start in range(0, len(labelled), _MOST_CURVES):
                some = labelled[start : start + _MOST_CURVES]
                drawn = draw_curves(f"curves-{len(pictures)}", facet.title, some, base, axes)
                pictures.append(Part("picture", drawn, f"{facet.title}. {_said(some)}"))
    if not pictures:
        return None
    note = (
        "Lines are means over seeds, bands go from the lowest to the highest seed; the baseline is "
        "grey. The loss is on the clean inputs of each update's batch, without penalties, averaged "
        "in windows. A seed that ended early counts as far as it went."
    )
    parts = (Part("note", note), *side_by_side(pictures, MOST_OPEN))
    return Section("curves", "Learning curves", parts)


def _axes(pairs: Sequence[Pair]) -> list[tuple[str, float, Scale, float]]:
    """Return the panels of a task's figures: titles, units, and both axes, which all share."""
    found = []
    for place, (title, unit, ends) in enumerate(_PANELS):
        known = [curve for pair in pairs if (curve := pair[place]) is not None]
        values = [value for curve in known for value in (*curve.lows, *curve.highs)]
        scale = scale_around([*ends, *values])
        if min(values, default=0.0) >= 0:
            scale = Scale(max(0.0, scale.low), scale.high)
        last = max((curve.steps[-1] for curve in known), default=1.0)
        found.append((title, unit, scale, last))
    return found


def _said(labelled: Sequence[tuple[str, Pair]]) -> str:
    """Return where training losses begin and end, in words."""
    said = []
    for label, (_, curve) in labelled:
        assert curve is not None
        ends = f"{curve.means[0]:.3g} at update {curve.steps[0]}, {curve.means[-1]:.3g}"
        said.append(f"Training loss of {label}: {ends} at {curve.steps[-1]}.")
    return " ".join(said)


def example_section(record: StudyRecord) -> Section | None:
    """Return the section with inputs before and after a perturbation; `None` without any."""
    parts: list[Part] = []
    for entry in record.whole_entries:
        for cell in entry.cells:
            found = read_examples(record.folder(cell), _MOST_EXAMPLES)
            if found:
                title = entry.label if len(record.tasks) == 1 else f"{entry.label}, {entry.task}"
                title += f": seed {cell.config.seed}"
                changes = [Part("change", one) for one in found]
                parts.append(Part("fold", changes, title, is_open=not parts))
                break
    if not parts:
        return None
    lead = Part("note", "The last inputs that a run wrote down; marked words were replaced.")
    return Section("examples", "Perturbed examples", (lead, *parts))


def cost_section(record: StudyRecord) -> Section | None:
    """Return the section on time and memory; `None` before the first result."""
    if not record.results:
        return None
    total = sum(float(result["seconds"]) for result in record.results.values())
    said = f"The seconds of {len(record.results)} runs add up to {_duration(total)}."
    parts = (Part("text", said), Part("table", _cost_table(record)))
    return Section("cost", "Time and memory", parts)


def run_section(record: StudyRecord) -> Section:
    """Return the section with every run, those without a score first."""
    runs = _run_table(record)
    lost = [row for row in runs.rows if row["status"] in ("failed", "diverged")]
    left = record.num_runs - record.num_finished - len(record.errors)
    said = [f"{record.num_finished} of {record.num_runs} runs have ended with a result."]
    if left:
        said.append(f"{left} are not finished.")
    held = entries(record.path / "runs") if is_there(record.path / "runs") else []
    strays = len({*held} - {cell.identity for _, cell in record.runs})
    if strays:
        said.append(
            f"{strays} other folders in runs/ are of no run of this study as it is now: of other "
            "variants or seeds, or of an earlier version."
        )
    parts = [Part("warning" if left or strays or lost else "text", " ".join(said))]
    if lost:
        title = "Runs that failed or diverged"
        kept = [c for c in runs.columns if c.key not in ("selected_step", "held_out_score")]
        parts += [Part("heading", title), Part("table", Table("lost-runs", title, kept, lost))]
    parts.append(Part("folded-table", runs))
    return Section("runs", "Runs", parts)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def _cost_table(record: StudyRecord) -> Table:
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


def _run_table(record: StudyRecord) -> Table:
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
    rows = tuple(_run_row(record, entry, cell) for entry, cell in record.runs)
    return Table("runs", "Runs", columns, rows)


def _cost_row(record: StudyRecord, entry: Entry) -> dict[str, Any]:
    found = [record.results[c.identity] for c in entry.cells if c.identity in record.results]

    def mean(key: str) -> float | None:
        values = [r[key] for r in found if r.get(key) is not None]
        return fmean(values) if values else None

    peak = max((r["peak_bytes"] for r in found if r.get("peak_bytes")), default=None)
    return {
        **entry.place,
        "num_runs": len(found),
        "updates": max((r["steps"] for r in found), default=None),
        "trainable_parameters": entry.line["trainable_parameters"],
        "seconds": mean("seconds"),
        "total_seconds": entry.line["seconds"] if found else None,
        "examples_per_second": mean("examples_per_second"),
        "peak_mib": None if peak is None else peak / 2**20,
        "peak_bytes": peak,
    }


def _run_row(record: StudyRecord, entry: Entry, cell: Cell) -> dict[str, Any]:
    result = record.results.get(cell.identity)
    row = {
        **entry.place,
        "seed": cell.config.seed,
        "identity": cell.identity,
        "status": "failed" if cell.identity in record.errors else "not finished",
        "reason": record.errors.get(cell.identity),
    }
    if result is None:
        return row
    lost = {} if result["status"] == "finished" else {"score": None, "last_score": None}
    why = result.get("divergence")
    if isinstance(why, Mapping):
        why = ", ".join(f"{key} {shown(value)}" for key, value in why.items())
    ended = {"status": result["status"], "reason": str(why) if why else None}
    return {**result, **row, **ended, **lost}


def written_section(record: StudyRecord) -> Section | None:
    """Return the section with what the first seed of each variant wrote; `None` without texts."""
    rows = []
    for entry in record.entries:
        for cell in entry.cells:
            result = record.results.get(cell.identity, {})
            own = result.get("tasks", {}).get(entry.task, {}) if entry.part_of else result
            if own.get("written"):
                rows += [{**entry.place, "seed": cell.config.seed, **one} for one in own["written"]]
                break
    if not rows:
        return None
    columns = (
        *place_columns(record),
        Column("seed", "seed", "count"),
        Column("place", "place"),
        Column("token_f1", "F1 of words", "percent"),
        Column("input", "input", "long"),
        Column("text", "written", "long"),
        Column("reference", "reference", "long"),
    )
    table = Table("written", "Texts on the reported rows", columns, rows)
    said = "The best, the median and the worst of each variant's first seed, by the F1 of words."
    return Section("written", "Written texts", (Part("note", said), Part("table", table)))
