"""The section on swept fields: how a score changes with a number, and where it hardly does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.lab.reports.markup import Html, joined, tag
from softprompts.lab.reports.robustness import start_of_axis
from softprompts.lab.reports.sections import (
    Section,
    chart,
    swatch,
    swatches,
    with_sources,
)
from softprompts.lab.reports.study_record import StudyRecord, point_label, shown
from softprompts.lab.reports.svg import Scale, grid_lines, scale_around, stretched, upright
from softprompts.lab.reports.tabular import Column, Table

Curve = Mapping[str, Any]


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
    parts: list[Html | None] = []
    reported = [curve for curve in curves if curve["rows"] == "reported"]
    for field in dict.fromkeys(curve["field"] for curve in reported):
        own = [curve for curve in reported if curve["field"] == field]
        parts += [tag("h3", field), _charts(own, curves)]
    if reported:
        key = swatches(
            (swatch("bar", "curve"), "mean score, with its 95 % interval"),
            (swatch("bar", "curve other"), "on held-out rows"),
            (swatch("box", "plateau"), "within a point of the best"),
            (swatch("rule", "default"), "default"),
            (swatch("rule", "diverged"), "a run diverged"),
        )
        parts.insert(0, key)
    body = joined(
        [
            *parts,
            tag("h3", plateaus.title),
            with_sources(plateaus),
            with_sources(values, is_folded=True),
        ]
    )
    return Section("robustness", "Swept fields", body, (plateaus, values))


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


def _charts(curves: Sequence[Curve], everything: Sequence[Curve]) -> Html:
    """Return a chart per curve of one field, on one axis of scores for each task."""
    charts = []
    for curve in curves:
        same = [
            c for c in everything if c["task"] == curve["task"] and c["field"] == curve["field"]
        ]
        ends = [
            end
            for one in same
            for key in ("means", "lows", "highs")
            for end in one[key]
            if end is not None
        ]
        found = scale_around(ends)
        y = Scale(max(0.0, found.low), min(1.0, found.high))
        twin = next((c for c in same if _is_twin(c, curve)), None)
        charts.append(_chart(curve, twin, y))
    return tag("div", *charts, class_="small broad")


def _is_twin(one: Curve, other: Curve) -> bool:
    """Return whether two curves differ in nothing but the rows that scores are of."""
    keys = ("field", "task", "variant", "point")
    return one["rows"] != other["rows"] and all(one[key] == other[key] for key in keys)


def _chart(curve: Curve, twin: Curve | None, y: Scale) -> Html:
    values = curve["values"]
    start = start_of_axis(values)
    margin = 0.03 * (values[-1] - values[0])
    if start is None:
        x = Scale(values[0] - margin, values[-1] + margin)
    else:
        x = Scale(start, values[-1], is_logarithmic=True)
    label = ", ".join(
        part for part in (curve["variant"], curve["task"], point_label(curve["point"])) if part
    )
    parts = grid_lines(y)
    if curve["plateau"] is not None:
        low, high = (x.place(end) for end in curve["plateau"])
        wide = max(high - low, 1.5)
        left = min(max(0.0, (low + high - wide) / 2), 100 - wide)
        parts.append(
            tag("rect", x=f"{left:.2f}", width=f"{wide:.2f}", y="0", height="100", class_="plateau")
        )
    default = curve["default_value"]
    if default is not None and values[0] <= default <= values[-1]:
        parts.append(upright(x.place(default), (0.0, 100.0), "default"))
    if twin is not None:
        parts.append(_line(twin, x, y, "curve other"))
    parts.append(_line(curve, x, y, "curve"))
    parts += _whiskers(curve, x, y)
    picture = stretched(f"{label}: {'; '.join(_titles(curve))}", parts)
    ys = (f"{100 * y.high:.0f}", f"{100 * y.low:.0f}")
    ends = (f"{values[0]:g}", f"{values[-1]:g}{' (log)' if x.is_logarithmic else ''}")
    return chart(label, picture, ys, ends, "tall")


def _line(curve: Curve, x: Scale, y: Scale, look: str) -> Html:
    """Return the line of means; it leaves out values without a score."""
    known = zip(curve["values"], curve["means"], strict=True)
    places = " ".join(
        f"{x.place(value):.2f},{100 - y.place(mean):.2f}"
        for value, mean in known
        if mean is not None
    )
    return tag("polyline", points=places, class_=look)


def _whiskers(curve: Curve, x: Scale, y: Scale) -> list[Html]:
    """Return intervals, marks of divergence, and a wide unseen target that tells the values."""
    parts = []
    for number, value in enumerate(curve["values"]):
        at, low, high = x.place(value), curve["lows"][number], curve["highs"][number]
        if low is not None:
            ends = (100 - y.place(high), 100 - y.place(low))
            parts.append(upright(at, ends, "whisker"))
        if curve["diverged"][number]:
            parts.append(upright(at, (90.0, 100.0), "diverged"))
    for number, title in enumerate(_titles(curve)):
        left = max(0.0, x.place(curve["values"][number]) - 3)
        parts.append(
            tag(
                "rect",
                tag("title", title),
                x=f"{left:.2f}",
                width="6",
                y="0",
                height="100",
                class_="area",
            )
        )
    return parts


def _titles(curve: Curve) -> list[str]:
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
