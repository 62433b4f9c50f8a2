"""The section on swept fields: how a score changes with a number, and where it hardly does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from softprompts.lab.reports.pages import Part, Section
from softprompts.lab.reports.study_figures import Scale, draw_sweep, scale_around
from softprompts.lab.reports.study_record import StudyRecord, point_label, shown
from softprompts.lab.reports.tabular import Column, Table

Curve = Mapping[str, Any]

_LEGEND: Final = (
    "Line: mean score with its 95 % interval; dashed: on held-out rows. Yellow: within a point of "
    "the best. Dotted: the default. Cross: a run diverged."
)


def robustness_section(record: StudyRecord) -> Section | None:
    """Return the section on swept fields; `None` where none was swept.

    Args:
        record: the study.
    """
    found = record.summary["robustness"]
    plateaus, values = plateau_table(found), value_table(found)
    if not values.rows:
        return None
    curves = [c for c in found["curves"] if any(mean is not None for mean in c["means"])]
    reported = [curve for curve in curves if curve["rows"] == "reported"]
    parts: list[Part] = []
    if reported:
        parts.append(Part("note", _LEGEND))
    for field in dict.fromkeys(curve["field"] for curve in reported):
        own = [n for n, curve in enumerate(reported) if curve["field"] == field]
        pictures = [_picture(f"sweep-{n}", reported[n], curves) for n in own]
        parts += [Part("heading", field), Part("pictures", pictures)]
    parts += [
        Part("heading", plateaus.title),
        Part("table", plateaus),
        Part("folded-table", values),
    ]
    return Section("robustness", "Swept fields", tuple(parts))


def _picture(name: str, curve: Curve, everything: Sequence[Curve]) -> Part:
    """Return the picture of a curve, on the one axis of scores of its task and field."""
    same = [c for c in everything if all(c[key] == curve[key] for key in ("task", "field"))]
    found = scale_around(
        [
            end
            for one in same
            for key in ("means", "lows", "highs")
            for end in one[key]
            if end is not None
        ]
    )
    y = Scale(max(0.0, found.low), min(1.0, found.high))
    keys = ("variant", "point")
    twins = [c for c in same if c["rows"] != curve["rows"] and all(c[k] == curve[k] for k in keys)]
    label = [curve["variant"], curve["task"], point_label(curve["point"])]
    title, hints = ", ".join(part for part in label if part), _hints(curve)
    drawn = draw_sweep(name, title, (curve, twins[0] if twins else None), y, hints)
    return Part("picture", drawn, f"{title}: {'; '.join(hints)}")


def plateau_table(found: Mapping[str, Sequence[Curve]]) -> Table:
    """Return best value, plateau and default of each swept field.

    Args:
        found: `robustness` of `summary.json`.
    """
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
    rows = [*map(_curve_row, found["curves"]), *map(_level_row, found["levels"])]
    note_text = "A value where a run diverged is on no plateau."
    return Table("robustness", "Best values and plateaus", columns, tuple(rows), note_text)


def value_table(found: Mapping[str, Sequence[Curve]]) -> Table:
    """Return the score at every value of each swept field.

    Args:
        found: `robustness` of `summary.json`.
    """
    columns = (
        *_ABOUT,
        Column("value", "value"),
        Column("mean", "mean", "percent"),
        Column("interval", "95 % interval", "range", ("low", "high")),
        Column("num_scores", "scores", "count"),
        Column("num_diverged", "diverged", "count"),
    )
    rows = []
    for one in (*found["curves"], *found["levels"]):
        places = one["values"] if "values" in one else one["names"]
        for number, value in enumerate(places):
            low, high = one["lows"][number], one["highs"][number]
            rows.append(
                {
                    **_about(one),
                    "value": shown(value),
                    "mean": one["means"][number],
                    "interval": None if low is None else (low, high),
                    "num_scores": one["counts"][number],
                    "num_diverged": one["diverged"][number],
                }
            )
    return Table("swept-values", "Scores at every swept value", columns, tuple(rows))


_ABOUT = (
    Column("field", "field"),
    Column("task", "task"),
    Column("variant", "variant"),
    Column("point", "at"),
    Column("rows", "rows"),
)


def _about(one: Curve) -> dict[str, Any]:
    kept = {key: one[key] for key in ("field", "task", "variant", "rows")}
    return {**kept, "point": point_label(one["point"]) or None}


def _curve_row(curve: Curve) -> dict[str, Any]:
    values, ends = list(curve["values"]), curve["plateau"]
    best, default, near = (
        curve["best_value"],
        curve["default_value"],
        curve["is_default_on_plateau"],
    )
    return {
        **_about(curve),
        "best": None if best is None else f"{best:g}",
        "best_score": None if best is None else curve["means"][values.index(best)],
        "plateau": None if ends is None else f"{ends[0]:g} to {ends[1]:g}",
        "plateau_width": curve["plateau_width"],
        "width_unit": "decades" if curve["is_logarithmic"] else None,
        "default": None if default is None else f"{default:g}",
        "default_score": curve["score_at_default"],
        "is_default_near": None if near is None else ("yes" if near else "no"),
    }


def _level_row(levels: Curve) -> dict[str, Any]:
    names, best, near = list(levels["names"]), levels["best_name"], levels["near_best"]
    default, score = levels["default_name"], levels["score_at_default"]
    return {
        **_about(levels),
        "best": best,
        "best_score": None if best is None else levels["means"][names.index(best)],
        "plateau": ", ".join(near) or None,
        "default": default,
        "default_score": score,
        "is_default_near": None if score is None else ("yes" if default in near else "no"),
    }


def _hints(curve: Curve) -> list[str]:
    """Return what there is to say of each value."""
    said = []
    for number, value in enumerate(curve["values"]):
        mean, low, high = (curve[key][number] for key in ("means", "lows", "highs"))
        text = "no score" if mean is None else f"{100 * mean:.1f}"
        if low is not None:
            text += f" ({100 * low:.1f} to {100 * high:.1f})"
        lost = curve["diverged"][number]
        said.append(f"{value:g}: {text}, {curve['counts'][number]} seeds")
        if lost:
            said[-1] += f", {lost} diverged"
    return said
