"""The sections on scores: every seed, and what variants differ by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.lab.analysis.study_statistics import without_task
from softprompts.lab.analysis.wording import RATE
from softprompts.lab.reports.conclusions import conclusions
from softprompts.lab.reports.findings import main_comparisons
from softprompts.lab.reports.markup import Html, joined, tag
from softprompts.lab.reports.report_tables import (
    average_table,
    comparison_table,
    score_table,
    seeds_of,
)
from softprompts.lab.reports.sections import (
    MOST_OPEN,
    Section,
    folded,
    note,
    swatch,
    swatches,
    with_sources,
)
from softprompts.lab.reports.study_record import Entry, Facet, StudyRecord, point_label
from softprompts.lab.reports.svg import (
    Scale,
    axis,
    bar,
    beyond,
    dots,
    mark,
    rule,
    scale_around,
    svg,
)

_MOST_SENTENCES = 6
_FAR = 1.5  # spans of the scores: a majority score farther off is told, not drawn


def score_section(record: StudyRecord) -> Section:
    """Return the section with every seed's score, and the table of scores.

    Args:
        record: the study.
    """
    facets = record.facets()
    scales = {facet.task: _scale(facets, facet.task) for facet in facets}
    parts = [_strips(record, facet, scales[facet.task]) for facet in facets]
    table, means = score_table(record), average_table(record)
    key = swatches(
        (swatch("dot", "dot"), "a seed"),
        (swatch("rule", "mean"), "mean"),
        (swatch("bar", "interval"), "95 % interval of the mean"),
        (swatch("rule", "majority"), "majority class"),
        *(
            [(swatch("rule", "baseline"), f"mean of {record.baseline}")]
            if any(_baseline_mean(record, facet) is not None for facet in facets)
            else []
        ),
    )
    averages = joined([tag("h3", means.title), with_sources(means)]) if means.rows else None
    body = joined(
        [
            key,
            _far_majorities(facets, scales),
            _some_folded(parts, facets),
            tag("h3", "Table"),
            with_sources(table),
            averages,
        ]
    )
    return Section("scores", "Scores", body, (table, *([means] if means.rows else [])))


def comparison_section(record: StudyRecord) -> Section | None:
    """Return the section with each variant against the baseline; `None` without comparisons.

    Args:
        record: the study.
    """
    main = [one for one in main_comparisons(record.summary) if one["difference"] is not None]
    said = conclusions(record.summary)
    if not said:
        return None
    table = comparison_table(record)
    pictures = [_forest(main), _ratios(main)] if main else []
    sentences = tag("ul", (tag("li", text) for text in said))
    is_short = len(said) <= _MOST_SENTENCES
    title = f"What may be concluded, in words: {len(said)} sentences"
    body = joined(
        [
            *pictures,
            tag("h3", "Conclusions") if is_short else None,
            sentences if is_short else folded(title, sentences),
            with_sources(table, is_folded=len(table.rows) > 1),
        ]
    )
    return Section("comparisons", f"Against {record.baseline}", body, (table,))


def _scale(facets: Sequence[Facet], task: str) -> Scale:
    """Return the one axis of a task."""
    lines = [e.line for facet in facets if facet.task == task for e in facet.entries]
    values = [score for line in lines for score in line["scores"]]
    ends = [end for line in lines for end in line["interval"] or () if line["scores"]]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.35 * (high - low) + 0.02  # wide intervals of two seeds are cut, not followed
    kept = [min(max(end, low - room), high + room) for end in ends]
    span = high - low + 0.02
    majority = [m for line in lines if (m := line["majority"]) is not None and values]
    near = [m for m in majority if low - _FAR * span <= m <= high + _FAR * span]
    found = scale_around([*values, *kept, *near])
    return (
        Scale(max(0.0, found.low), min(1.0, found.high)) if max(values, default=0) <= 1 else found
    )


def _far_majorities(facets: Sequence[Facet], scales: Mapping[str, Scale]) -> Html | None:
    """Say which majority scores are beyond their axis."""
    far = {
        f"{facet.task} {100 * m:.1f}": None
        for facet in facets
        for entry in facet.entries
        if (m := entry.line["majority"]) is not None and not scales[facet.task].holds(m)
    }
    return note(f"Majority class beyond the axis: {', '.join(far)}.") if far else None


def _strips(record: StudyRecord, facet: Facet, scale: Scale) -> Html:
    """Return a row per entry: a dot per seed, mean and interval."""
    base = _baseline_mean(record, facet)
    ticks = scale.ticks()
    rows = [_strip(record, entry, scale, ticks, base) for entry in facet.entries]
    labels = [(tick, f"{100 * tick:g}") for tick in ticks]
    ends = tag(
        "div",
        tag("span", "", class_="name"),
        axis(scale, labels),
        tag("span", "percent", class_="value tick"),
        class_="row ends",
    )
    return tag("figure", *rows, ends, aria_label=f"Scores on {facet.title}; see the table below")


def _strip(
    record: StudyRecord, entry: Entry, scale: Scale, ticks: Sequence[float], base: float | None
) -> Html:
    line = entry.line
    name = tag("span", entry.label, class_=_name_class(record, entry))
    if not entry.num_scored:
        return tag("div", name, _no_score(entry), _value(entry), class_="row data")
    seeds = [
        f"seed {seed}: {100 * score:.1f}"
        for seed, score in zip(line["seeds"], line["scores"], strict=True)
    ]
    interval = line["interval"]
    said = f"{entry.label}: {', '.join(seeds)}"
    if interval is not None:
        said += f"; {_range('95 % interval', interval)}{beyond(scale, interval)}"
    picture = svg(
        said,
        *(rule(scale.place(tick), "grid") for tick in ticks),
        _at(scale, line["majority"], "majority", "majority class"),
        _at(scale, base, "baseline", f"mean of {record.baseline}"),
        None
        if interval is None
        else bar(scale, interval, "interval", _range("95 % interval", interval)),
        *dots([scale.place(score) for score in line["scores"]], seeds),
        mark(scale.place(line["mean"]), "mean", f"mean {100 * line['mean']:.1f}"),
    )
    return tag("div", name, picture, _value(entry), class_="row data")


def _at(scale: Scale, value: float | None, look: str, title: str) -> Html | None:
    if value is None or not scale.holds(value):
        return None
    return rule(scale.place(value), look, title=f"{title}: {100 * value:.1f}")


def _no_score(entry: Entry) -> Html:
    """Say why an entry has no score at all."""
    line = entry.line
    counts = (
        ("diverged", "num_diverged"),
        ("failed", "num_failed"),
        ("not run yet", "num_missing"),
    )
    said = ", ".join(f"{line[key]} {word}" for word, key in counts if line[key])
    return tag("span", f"no score: {said}", class_="plain note")


def _value(entry: Entry) -> Html:
    line = entry.line
    text = None
    if line["mean"] is not None:
        spread = "" if line["std"] is None else f" ± {100 * line['std']:.1f}"
        text = f"{100 * line['mean']:.1f}{spread} "
    badge = None
    if entry.num_scored < entry.num_seeds:
        badge = tag("span", f"{seeds_of(entry)} seeds", class_="badge")
    return tag("span", text, badge, class_="value")


def _name_class(record: StudyRecord, entry: Entry) -> str:
    is_base = entry.variant == record.baseline and len(record.study.variants) > 1
    return "name base" if is_base else "name"


def _baseline_mean(record: StudyRecord, facet: Facet) -> float | None:
    """Return the mean that a facet's rows are compared with, where there is just one."""
    means = {e.line["mean"] for e in facet.entries if e.variant == record.baseline}
    return means.pop() if len(means) == 1 and len(facet.entries) > 1 else None


def _some_folded(parts: Sequence[Html], facets: Sequence[Facet]) -> Html:
    """Return pictures under their titles; those beyond the first few are folded."""
    shown = []
    for number, (part, facet) in enumerate(zip(parts, facets, strict=True)):
        if number < MOST_OPEN:
            shown += [tag("h3", facet.title), part]
        else:
            shown.append(folded(facet.title, part))
    return joined(shown)


def _forest(main: Sequence[Mapping[str, Any]]) -> Html:
    """Return the differences of means with their intervals."""
    ends = [end for one in main for end in one["interval"] or (one["difference"],)]
    wide = [end for one in main for end in one["interval_with_items"] or ()]
    near = scale_around([*ends, 0.0])
    room = 0.3 * (near.high - near.low)
    kept = [min(max(end, near.low - room), near.high + room) for end in wide]
    scale = scale_around([*ends, *kept, 0.0])
    groups = [
        (title, [_difference_row(one, label, scale) for one, label in rows])
        for title, rows in _grouped(main)
    ]
    labels = [
        (tick, f"{100 * tick:+g}".replace("-", "−") if tick else "0") for tick in scale.ticks()
    ]
    key = swatches(
        (swatch("bar", "between"), "95 % interval over seeds, shown after correction"),
        (swatch("bar", "between none"), "the same, not shown"),
        (swatch("bar", "items"), "over seeds and items"),
    )
    return joined([tag("h3", "Difference of means"), key, _rows(groups, scale, labels, "points")])


def _difference_row(one: Mapping[str, Any], label: str, scale: Scale) -> Html:
    is_shown = one["p_adjusted"] is not None and one["p_adjusted"] <= RATE
    look = "" if is_shown else " none"
    items, seeds = one["interval_with_items"], one["interval"]
    size = _points(one["difference"])
    between = "" if seeds is None else f" ({_points(seeds[0])} to {_points(seeds[1])})"
    far = "" if seeds is None else beyond(scale, seeds)
    if items is not None and not far and (cut := beyond(scale, items)):
        far = f"{cut} with other items"
    p = "" if one["p_adjusted"] is None else f"p {one['p_adjusted']:.2g}"
    picture = svg(
        f"{label}: {size}{between} points, {p or 'no test'}{far}",
        rule(scale.place(0.0), "baseline"),
        None if items is None else bar(scale, items, "items", "with other items"),
        None if seeds is None else bar(scale, seeds, f"between{look}", between.strip()),
        mark(scale.place(one["difference"]), f"mean{look}", size),
    )
    value = tag("span", size, tag("small", between, " ", p), class_="value")
    return tag("div", tag("span", label, class_="name"), picture, value, class_="row data")


def _ratios(main: Sequence[Mapping[str, Any]]) -> Html | None:
    """Return the ratios of spreads with their intervals."""
    known = [one for one in main if one["std_ratio"]]
    if not known:
        return None
    ratios = [one["std_ratio"] for one in known]
    low, high = min([*ratios, 0.5]) / 2, max([*ratios, 2.0]) * 2
    ends = [end for one in known for end in one["std_ratio_interval"] or ()]
    scale = Scale(
        max(low / 4, min([*ends, low * 2])) * 0.9, min(high * 4, max([*ends, high / 2])) * 1.1, True
    )
    groups = [
        (title, [_ratio_row(one, label, scale) for one, label in rows])
        for title, rows in _grouped(known)
    ]
    labels = [(tick, f"{tick:g}×") for tick in scale.ticks()]
    lead = note("Standard deviation over seeds, divided by that of the baseline: left is steadier.")
    body = _rows(groups, scale, labels, "times")
    return joined([tag("h3", "Ratio of spreads"), lead, body])


def _ratio_row(one: Mapping[str, Any], label: str, scale: Scale) -> Html:
    is_shown = one["p_spread_adjusted"] is not None and one["p_spread_adjusted"] <= RATE
    look = "" if is_shown else " none"
    ends = one["std_ratio_interval"]
    between = "" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
    far = "" if ends is None else beyond(scale, ends)
    p = "" if one["p_spread_adjusted"] is None else f"p {one['p_spread_adjusted']:.2g}"
    size = f"{one['std_ratio']:.2f}"
    picture = svg(
        f"{label}: {size} times{between}, {p or 'no test'}{far}",
        rule(scale.place(1.0), "baseline"),
        None if ends is None else bar(scale, ends, f"between{look}", between.strip()),
        mark(scale.place(one["std_ratio"]), f"mean{look}", size),
    )
    value = tag("span", size, tag("small", between, " ", p), class_="value")
    return tag("div", tag("span", label, class_="name"), picture, value, class_="row data")


def _grouped(
    found: Sequence[Mapping[str, Any]],
) -> list[tuple[str, list[tuple[Mapping[str, Any], str]]]]:
    """Return comparisons by task and grid point, or by task and variant: whichever are fewer."""
    points = {point_label(one["point"]) for one in found}
    by_point = len({one["variant"] for one in found}) >= len(points)
    groups: dict[str, list[tuple[Mapping[str, Any], str]]] = {}
    for one in found:
        point = point_label(without_task(one["point"]))
        shared, label = (point, one["variant"]) if by_point else (one["variant"], point)
        tasks = one["tasks"]
        where = tasks[0] if len(tasks) == 1 else f"mean over {len(tasks)} tasks"
        title = ", ".join(part for part in (where, shared) if part)
        groups.setdefault(title, []).append((one, label))
    return list(groups.items())


def _rows(
    groups: Sequence[tuple[str, Sequence[Html]]],
    scale: Scale,
    labels: Sequence[tuple[float, str]],
    unit: str,
) -> Html:
    """Return rows in groups, each with the axis under it."""
    shown: list[Html] = []
    for number, (title, rows) in enumerate(groups):
        ends = tag(
            "div",
            tag("span", "", class_="name"),
            axis(scale, labels),
            tag("span", unit, class_="value tick"),
            class_="row ends",
        )
        said = f"{title}; see the table below"
        figure = tag("figure", *rows, ends, class_="wide-values", aria_label=said)
        if number < MOST_OPEN:
            shown += [tag("p", title, class_="note"), figure]
        else:
            shown.append(folded(title, figure))
    return joined(shown)


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _range(what: str, ends: Sequence[float]) -> str:
    return f"{what}: {100 * ends[0]:.1f} to {100 * ends[1]:.1f}"
