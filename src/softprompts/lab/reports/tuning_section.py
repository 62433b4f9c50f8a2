"""The section on tuning: what each variant chose on held-out rows, and what that was worth."""

from __future__ import annotations

from softprompts.lab.reports.pages import Part, Section
from softprompts.lab.reports.study_record import StudyRecord, point_label, shown
from softprompts.lab.reports.tabular import Column, Table
from softprompts.lab.studies.tuning_record import TuningRecord, read_tuning

_COLUMNS = (
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
    """Return the section on tuning; `None` where nothing was tuned here.

    Args:
        record: the study.
    """
    tune = record.study.tune
    if tune is not None and tune.chosen is None:
        text = (
            f"{tune.field} is not tuned yet: what this page shows is of the values before tuning."
        )
        return Section("tuning", "Tuning", (Part("note", text),))
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
    return Section("tuning", "Tuning", tuple(parts))


def _tuning_table(found: TuningRecord) -> Table:
    """Return what was chosen, a row per variant and point."""
    rows = [
        {
            "task": one.task,
            "variant": one.variant,
            "point": point_label(one.point) or None,
            "value": shown(one.value),
            "score": one.score,
            "last_rung": ", ".join(shown(t.value) for t in one.rungs[-1].tried),
            "num_diverged": sum(t.num_diverged for rung in one.rungs for t in rung.tried),
            "updates": one.updates,
            "updates_done": one.updates_done,
            "remark": one.remark or None,
        }
        for one in found.choices
    ]
    text = "Scores are means over the seeds of tuning, in the last rung, the best first."
    return Table("tuning", f"Tuned values of {found.field}", _COLUMNS, tuple(rows), text)
