"""The section on swept fields: how a score changes with a number, and where it hardly does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from softprompts.lab.reports.pages import Part, Section
from softprompts.lab.reports.robustness import plateau_of
from softprompts.lab.reports.study_figures import draw_sweep, scale_around
from softprompts.lab.reports.study_record import StudyRecord, point_label, shown
from softprompts.lab.reports.tabular import Column, Table

Curve = Mapping[str, Any]

_ABOUT: Final = (
    Column("field", "field"),
    Column("task", "task"),
    Column("variant", "variant"),
    Column("point", "at"),
    Column("rows", "rows"),
)
_LEGEND: Final = (
    "Line: mean score with its 95 % interval; dashed: on held-out rows. Yellow: within a point of "
    "the best. Dotted: the default. Cross: a run diverged."
)


def robustness_section(record: StudyRecord) -> Section | None:
    """Return the section on swept fields; `None` where none was swept."""
    found = record.summary["robustness"]
    everything = (*found["curves"], *found["levels"])
    plateaus, values = _plateau_table(everything), _value_table(everything)
    if not values.rows:
        return None
    curves = [c for c in found["curves"] if any(mean is not None for mean in c["means"])]
    reported = [curve for curve in curves if curve["rows"] == "reported"]
    parts = [Part("note", _LEGEND)] if reported else []
    for field in dict.fromkeys(curve["field"] for curve in reported):
        own = [n for n, curve in enumerate(reported) if curve["field"] == field]
        pictures = [_picture(f"sweep-{n}", reported[n], curves) for n in own]
        parts += [Part("heading", field), Part("pictures", pictures)]
    parts += [Part("heading", plateaus.title), Part("table", plateaus)]
    parts.append(Part("folded-table", values))
    return Section("robustness", "Swept fields", parts)


def _picture(name: str, curve: Curve, everything: Sequence[Curve]) -> Part:
    """Return the picture of a curve, on the one axis of scores of its task and field."""
    same = [c for c in everything if all(c[key] == curve[key] for key in ("task", "field"))]
    ends = [end for one in same for key in ("means", "lows", "highs") for end in one[key]]
    y = scale_around([end for end in ends if end is not None]).as_share()
    keys = ("variant", "point")
    twins = [c for c in same if c["rows"] != curve["rows"] and all(c[k] == curve[k] for k in keys)]
    label = (curve["variant"], curve["task"], point_label(curve["point"]))
    title, hints = ", ".join(filter(None, label)), _hints(curve)
    drawn = draw_sweep(name, title, (curve, twins[0] if twins else None), y, hints)
    return Part("picture", drawn, f"{title}: {'; '.join(hints)}")


def _plateau_table(everything: Sequence[Curve]) -> Table:
    columns = (
        *_ABOUT,
        Column("best", "best"),
        Column("best_score", "its score", "percent"),
        Column("plateau", "within a point of it"),
        Column("plateau_width", "width", "number"),
        Column("width_unit", "unit"),
        Column("default", "default"),
        Column("default_score", "its score", "percent"),
        Column("is_default_near", "default within a point"),
    )
    rows = tuple({**_about(one), **plateau_of(one, "{:g}".format)} for one in everything)
    note = "A value where a run diverged is on no plateau."
    return Table("robustness", "Best values and plateaus", columns, rows, note)


def _value_table(everything: Sequence[Curve]) -> Table:
    columns = (
        *_ABOUT,
        Column("value", "value"),
        Column("mean", "mean", "percent"),
        Column("interval", "95 % interval", "range", ("low", "high")),
        Column("num_scores", "scores", "count"),
        Column("num_diverged", "diverged", "count"),
    )
    keys = ("value", "mean", "low", "high", "num_scores", "num_diverged")
    rows = []
    for one in everything:
        places = map(shown, one.get("values") or one["names"])
        lists = (one[key] for key in ("means", "lows", "highs", "counts", "diverged"))
        for values in zip(places, *lists, strict=True):
            rows.append({**_about(one), **dict(zip(keys, values, strict=True))})
    return Table("swept-values", "Scores at every swept value", columns, rows)


def _about(one: Curve) -> dict[str, Any]:
    return {**one, "point": point_label(one["point"]) or None}


def _hints(curve: Curve) -> list[str]:
    said, keys = [], ("values", "means", "lows", "highs", "counts", "diverged")
    for value, mean, low, high, count, lost in zip(*(curve[key] for key in keys), strict=True):
        text = "no score" if mean is None else f"{100 * mean:.1f}"
        if low is not None:
            text += f" ({100 * low:.1f} to {100 * high:.1f})"
        said.append(f"{value:g}: {text}, {count} seeds" + f", {lost} diverged" * bool(lost))
    return said
