"""The sections on scores: every seed, and what variants differ by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from softprompts.lab.analysis.comparisons import difference_range, ratio_range
from softprompts.lab.reports.findings import Comparison, conclusions, main_comparisons
from softprompts.lab.reports.pages import Part, Section
from softprompts.lab.reports.study_figures import Row, Scale, draw_rows, scale_around
from softprompts.lab.reports.study_record import (
    Entry,
    Facet,
    StudyRecord,
    field_columns,
    fields_of,
    place_columns,
    point_label,
)
from softprompts.lab.reports.table import lost_runs
from softprompts.lab.reports.tabular import Column, Table, spelled
from softprompts.recipes.study_size import RATE

MOST_OPEN = 8
"""Most groups of pictures that stand open; more are folded."""

_MOST_SENTENCES = 6
_FAR = 1.5  # spans of the scores: a majority score farther off is told, not drawn

_DISAGREE = (
    "Where an interval and the corrected p seem to disagree, the claim follows p, which must be at "
    f"most {RATE}. An interval is of one comparison alone and takes scores to be near normal. The "
    "test does not; its p is corrected for all comparisons, and with few seeds cannot be small."
)

_STATISTICS = (
    Column("score", "mean ± std", "score", ("mean", "std")),
    Column("interval", "95 % interval of the mean", "range", ("interval_low", "interval_high")),
    Column("min", "min", "percent"),
    Column("max", "max", "percent"),
    Column("median", "median", "percent"),
    Column("interquartile_mean", "interquartile mean", "percent", is_shown=False),
)


def score_picture(record: StudyRecord) -> list[Part]:
    """Return every seed of the first group of scores, and what the marks mean."""
    facets = record.facets()
    return [_strips(record, facets, 0), *_legend(record, facets, facets[:1])]


def score_section(record: StudyRecord) -> Section:
    """Return the section with the other groups of scores, and the table of all."""
    facets, parts = record.facets(), []
    if others := range(1, len(facets)):
        pictures = [(facets[number].title, _strips(record, facets, number)) for number in others]
        parts += [*_legend(record, facets, facets[1:]), *_some_folded(pictures)]
        parts.append(Part("heading", "Table"))
    parts.append(Part("table", _score_table(record)))
    means = _average_table(record)
    if means.rows:
        parts += [Part("heading", means.title), Part("table", means)]
    return Section("scores", "Scores", parts)


def _legend(record: StudyRecord, facets: Sequence[Facet], some: Sequence[Facet]) -> list[Part]:
    """Say what the marks in pictures of some facets mean, and which are not in them."""
    scales = {facet.task: _scale(facets, facet.task) for facet in some}
    majorities = [
        (f"{facet.task} {100 * m:.1f}", bool(scales[facet.task].beyond((m, m))))
        for facet in some
        for entry in facet.entries
        if (m := entry.line["majority"]) is not None
    ]
    far = dict.fromkeys(text for text, is_far in majorities if is_far)
    dashed = "" if all(is_far for _, is_far in majorities) else " Dashed: the majority class."
    metrics = dict.fromkeys(e.line["metric"] for f in some for e in f.entries if e.num_scored)
    what = f" ({', '.join(metrics)}, %)" if metrics else ""
    lead = (
        f"A dot is a seed{what}, the blue mark the "
        f"mean, the bar its 95 % interval.{dashed} Upright line: the mean of {record.baseline}."
    )
    beyond = [Part("note", f"Majority class beyond the axis: {', '.join(far)}.")] * bool(far)
    return [Part("note", lead), *beyond]


def comparison_section(record: StudyRecord) -> Section | None:
    """Return the section with each variant against the baseline; `None` without comparisons."""
    main = [one for one in main_comparisons(record.summary) if one["difference"] is not None]
    said = conclusions(record.summary)
    if not said:
        return None
    table = _comparison_table(record)
    parts = [*(_differences(main) if main else []), *_ratios([o for o in main if o["std_ratio"]])]
    if any(map(_seems_to_disagree, main)):
        parts.append(Part("note", _DISAGREE))
    if len(said) <= _MOST_SENTENCES:
        parts += [Part("heading", "Conclusions"), Part("list", said)]
    else:
        title = f"What may be concluded, in words: {len(said)} sentences"
        parts.append(Part("fold", (Part("list", said),), title))
    parts.append(Part("folded-table" if len(table.rows) > 1 else "table", table))
    return Section("comparisons", f"Against {record.baseline}", parts)


def _score_table(record: StudyRecord) -> Table:
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
    rows = []
    for entry in record.entries:
        counts = {"num_scored": entry.num_scored, "num_seeds": len(entry.cells)}
        rows.append({**entry.line, **entry.place, **counts, "seeds": entry.seeds})
    note = (
        "Scores in percent, mean and standard deviation over the seeds that finished. The interval "
        "is Student's, transformed for skewed scores."
    )
    return Table("scores", "Scores", columns, rows, note)


def _average_table(record: StudyRecord) -> Table:
    """Return the means over tasks; without rows where there is one task."""
    columns = (
        Column("variant", "variant"),
        *field_columns(record),
        Column("tasks", "tasks"),
        *_STATISTICS[:4],
        Column("benchmark", "benchmark"),
        Column("num_seeds", "seeds", "count"),
    )
    rows = [
        {**one, **one["over_seeds"], **fields_of(one["point"]), "num_seeds": len(one["seeds"])}
        | {"tasks": ", ".join(one["tasks"])}
        for one in record.summary["averages"]
    ]
    note = "Each task weighs the same; a seed counts where every task has its score."
    return Table("averages", "Means over tasks", columns, rows, note)


def _comparison_table(record: StudyRecord) -> Table:
    columns = (
        Column("variant", "variant"),
        Column("baseline", "baseline"),
        Column("tasks", "task"),
        *field_columns(record),
        Column("num_pairs", "pairs", "count"),
        Column("difference", "difference", "points"),
        Column("interval", "95 % interval", "difference", ("interval_low", "interval_high")),
        Column(
            "interval_with_items", "with other items", "difference", ("items_low", "items_high")
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
    rows = [
        {**one, **fields_of(one["point"]), "tasks": ", ".join(one["tasks"])}
        for one in record.summary["comparisons"]
    ]
    note = (
        "Differences in points of a percent, over paired seeds. Corrected by Holm. Detectable: the "
        "difference that a t-test would find in 80 % of such studies."
    )
    return Table("comparisons", f"Against {record.baseline}", columns, rows, note)


def _scale(facets: Sequence[Facet], task: str) -> Scale:
    lines = [e.line for facet in facets if facet.task == task for e in facet.entries]
    values = [score for line in lines for score in line["scores"]]
    ends = [end for line in lines for end in line["interval"] or ()]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.35 * (high - low) + 0.02  # wide intervals of two seeds are cut, not followed
    kept = map(Scale(low - room, high + room).inside, ends)
    span = high - low + 0.02
    majority = [m for line in lines if (m := line["majority"]) is not None and values]
    near = [m for m in majority if low - _FAR * span <= m <= high + _FAR * span]
    return scale_around([*values, *kept, *near]).as_share()


def _strips(record: StudyRecord, facets: Sequence[Facet], number: int) -> Part:
    """Return one of the facets as a row per entry: a dot per seed, mean and interval."""
    facet = facets[number]
    scale = _scale(facets, facet.task)
    rows = [_strip(entry, scale) for entry in facet.entries]
    lines = {"majority class": facet.entries[-1].line["majority"]}
    means = {e.line["mean"] for e in facet.entries if e.variant == record.baseline}
    if len(means) == 1 and len(rows) > 1:
        lines[f"mean of {record.baseline}"] = means.pop()
    shown = {k: v for k, v in lines.items() if v is not None and not scale.beyond((v, v))}
    return _picture(facet.title, draw_rows(f"scores-{number}", rows, scale, shown, "%"), rows)


def _strip(entry: Entry, scale: Scale) -> Row:
    line = entry.line
    some = "" if entry.num_scored == len(entry.cells) else f"{entry.seeds} seeds"
    if not entry.num_scored:
        said = f"no score: {', '.join(lost_runs(line))}"
        return Row(entry.label, said, said, None)
    pairs = zip(line["seeds"], line["scores"], strict=True)
    seeds = [f"seed {seed}: {100 * score:.1f}" for seed, score in pairs]
    spread = "" if line["std"] is None else f" ± {100 * line['std']:.1f}"
    text = f"{100 * line['mean']:.1f}{spread}"
    said, ends = f"mean {text}, {', '.join(seeds)}", line["interval"]
    if ends is not None:
        said += f"; 95 % interval {100 * ends[0]:.1f} to {100 * ends[1]:.1f}{scale.beyond(ends)}"
    text = f"{text}\n{some}".strip()
    return Row(entry.label, text, said, line["mean"], ends, None, line["scores"], seeds)


def _picture(title: str, drawn: Markup, rows: Sequence[Row]) -> Part:
    said = "; ".join(f"{row.label}: {row.said}" for row in rows)
    return Part("picture", drawn, f"{title}. {said}. The table below has the numbers.")


def _some_folded(pictures: Sequence[tuple[str, Part]]) -> list[Part]:
    """Return pictures under their titles; those beyond the first few are folded."""
    parts: list[Part] = []
    for title, picture in pictures[:MOST_OPEN]:
        parts += [Part("heading", title), picture]
    return parts + [Part("fold", (picture,), title) for title, picture in pictures[MOST_OPEN:]]


def _differences(main: Sequence[Comparison]) -> list[Part]:
    ends = [end for one in main for end in one["interval"] or (one["difference"],)]
    wide = [end for one in main for end in one["interval_with_items"] or ()]
    near = scale_around([*ends, 0.0])
    room = 0.3 * (near.high - near.low)
    kept = map(Scale(near.low - room, near.high + room).inside, wide)
    scale = scale_around([*ends, *kept, 0.0])
    pictures = _forest(main, scale, _difference_row, ("differences", "points", 0.0))
    lead = "95 % interval over seeds: blue where it is shown after correction, else grey."
    note = Part("note", f"{lead} Pale: over seeds and items.")
    return [Part("heading", "Difference of means"), note, *pictures]


def _difference_row(one: Comparison, label: str, scale: Scale) -> Row:
    items, seeds, p = one["interval_with_items"], one["interval"], one["p_adjusted"]
    size = spelled("points", one["difference"])
    if seeds is not None:
        between = difference_range(seeds)
        size = between if seeds[0] == seeds[1] else f"{size} ({between})"
    far = scale.beyond(seeds)
    if not far and (cut := scale.beyond(items)):
        far = f"{cut} with other items"
    said = f"{size}, in points; {_p(p) or 'no test'}{far}"
    text = f"{size}\n{_p(p)}".strip()
    return Row(label, text, said, one["difference"], seeds, items, is_shown=_is_shown(p))


def _ratios(known: Sequence[Comparison]) -> list[Part]:
    if not known:
        return []
    ratios = [one["std_ratio"] for one in known]
    low, high = min([*ratios, 0.5]) / 2, max([*ratios, 2.0]) * 2
    ends = [end for one in known for end in one["std_ratio_interval"] or ()]
    least, most = min([*ends, low * 2]), max([*ends, high / 2])
    scale = Scale(max(low / 4, least) * 0.9, min(high * 4, most) * 1.1, is_logarithmic=True)
    pictures = _forest(known, scale, _ratio_row, ("ratios", "times", 1.0))
    lead = "Standard deviation over seeds, divided by that of the baseline: left is steadier."
    return [Part("heading", "Ratio of spreads"), Part("note", lead), *pictures]


def _ratio_row(one: Comparison, label: str, scale: Scale) -> Row:
    ends, p = one["std_ratio_interval"], one["p_spread_adjusted"]
    between = "" if ends is None else f" ({ratio_range(ends)})"
    size = f"{one['std_ratio']:.2f}"
    said = f"{size} times{between}, {_p(p) or 'no test'}{scale.beyond(ends)}"
    text = f"{size}{between}\n{_p(p)}".strip()
    return Row(label, text, said, one["std_ratio"], ends, is_shown=_is_shown(p))


def _forest(
    found: Sequence[Comparison],
    scale: Scale,
    row_of: Callable[[Comparison, str, Scale], Row],
    about: tuple[str, str, float],
) -> list[Part]:
    """Return rows by task and grid point, or by task and variant: whichever are fewer."""
    name, unit, nothing = about
    points = {point_label(one["point"]) for one in found}
    by_point = len({one["variant"] for one in found}) >= len(points)
    groups: dict[str, list[Row]] = {}
    for one in found:
        point, tasks = point_label(one["point"]), one["tasks"]
        shared, label = (point, one["variant"]) if by_point else (one["variant"], point)
        where = tasks[0] if len(tasks) == 1 else f"mean over {len(tasks)} tasks"
        title = ", ".join(filter(None, (where, shared)))
        groups.setdefault(title, []).append(row_of(one, label, scale))
    pictures = []
    for number, (title, rows) in enumerate(groups.items()):
        drawn = draw_rows(f"{name}-{number}", rows, scale, {"no difference": nothing}, unit)
        pictures.append((title, _picture(title, drawn, rows)))
    return _some_folded(pictures)


def _is_shown(p: float | None) -> bool:
    return p is not None and p <= RATE


def _seems_to_disagree(one: Comparison) -> bool:
    """Return whether an interval shows what its test does not, or the other way round."""
    pairs = (("interval", 0, "p_adjusted"), ("std_ratio_interval", 1, "p_spread_adjusted"))
    known = [(one[ends], no, one[p]) for ends, no, p in pairs if None not in (one[ends], one[p])]
    return any((ends[0] <= no <= ends[1]) == _is_shown(p) for ends, no, p in known)


def _p(p: float | None) -> str:
    return "" if p is None else f"corrected p {p:.2g}"
