"""The sections on how runs went: learning curves, choices, perturbed inputs, time and memory."""

from __future__ import annotations

import re
from collections.abc import Sequence

from softprompts.lab.reports.curves_of_runs import Curve, curves_of
from softprompts.lab.reports.examples import Example, read_examples
from softprompts.lab.reports.markup import Html, joined, tag
from softprompts.lab.reports.report_tables import cost_table, lost_table, run_table
from softprompts.lab.reports.sections import (
    Section,
    chart,
    folded,
    note,
    panels,
    swatch,
    swatches,
    with_sources,
)
from softprompts.lab.reports.study_record import Entry, StudyRecord
from softprompts.lab.reports.svg import Scale, plot

_MOST_EXAMPLES = 3
_MARKED = re.compile(r"\[((?:\[[^\[\]]*\]|[^\[\]])*)\]")  # with tokens such as [MASK] within


def curve_section(record: StudyRecord) -> Section | None:
    """Return the section with learning curves; `None` before the first update.

    Args:
        record: the study.
    """
    found = {
        id(entry.cells): curves_of([record.folder(cell) for cell in entry.cells])
        for entry in record.whole_entries
    }
    losses = _panels(record, {key: pair[0] for key, pair in found.items()}, 1.0, "loss")
    scores = _panels(record, {key: pair[1] for key, pair in found.items()}, 100.0, "score")
    if losses is None:
        return None
    key = swatches(
        (swatch("bar", "curve"), "mean over seeds"),
        (swatch("box", "band"), "from the lowest to the highest seed"),
        *(
            [(swatch("bar", "curve other"), f"mean of {record.baseline}")]
            if len(record.study.variants) > 1
            else []
        ),
    )
    body = joined(
        [
            key,
            *([tag("h3", "Score on held-out rows"), scores] if scores else []),
            tag("h3", "Training loss"),
            losses,
            note(
                "Loss on the clean inputs of each update's batch, without penalties, averaged in "
                "windows. A seed that ended early counts as far as it went."
            ),
        ]
    )
    return Section("curves", "Learning curves", body)


def _panels(
    record: StudyRecord, curves: dict[int, Curve | None], unit: float, what: str
) -> Html | None:
    """Return a panel per entry, on one axis for each task."""
    shown: list[Html] = []
    number = 0
    for task in record.tasks:
        own = [e for e in record.whole_entries if e.task == task]
        known = [curve for e in own if (curve := curves[id(e.cells)]) is not None]
        if not known:
            continue
        highs = [high for curve in known for high in curve.highs]
        lows = [low for curve in known for low in curve.lows]
        y = Scale(min(0.0 if what == "loss" else 1.0, *lows), max(highs))
        x = Scale(0, max(curve.steps[-1] for curve in known))
        if len(record.tasks) > 1:
            shown.append(tag("h4", task))
        for facet in record.facets(own):
            base = _base_curve(record, facet.entries, curves)
            drawn = [(e, curve) for e in facet.entries if (curve := curves[id(e.cells)])]
            charts = [_panel(e.label, (curve, base), (x, y), unit) for e, curve in drawn]
            title = facet.title.removeprefix(facet.task).removeprefix(", ")
            if title and charts:
                shown.append(note(title))
            shown.append(panels(charts, number))
            number += len(charts)
    return joined(shown) if shown else None


def _panel(
    label: str, curves: tuple[Curve, Curve | None], axes: tuple[Scale, Scale], unit: float
) -> Html:
    curve, base = curves
    x, y = axes
    shown = [(curve, "")] if base is None or base is curve else [(base, "other"), (curve, "")]
    first, last = curve.means[0] * unit, curve.means[-1] * unit
    said = f"{label}: {first:.3g} at update {curve.steps[0]}, {last:.3g} at {curve.steps[-1]}"
    picture = plot(said, shown, x, y)
    return chart(
        label, picture, (f"{y.high * unit:.3g}", f"{y.low * unit:.3g}"), ("0", f"{x.high:g}")
    )


def _base_curve(
    record: StudyRecord, entries: Sequence[Entry], curves: dict[int, Curve | None]
) -> Curve | None:
    found = [curves[id(e.cells)] for e in entries if e.variant == record.baseline]
    return found[0] if len(found) == 1 else None


def example_section(record: StudyRecord) -> Section | None:
    """Return the section with inputs before and after a perturbation; `None` without any.

    Args:
        record: the study.
    """
    parts: list[Html] = []
    for entry in record.whole_entries:
        for cell in entry.cells:
            found = read_examples(record.folder(cell), _MOST_EXAMPLES)
            if found:
                title = entry.label if len(record.tasks) == 1 else f"{entry.label}, {entry.task}"
                shown = [_example(one) for one in found]
                about = f"{title}: seed {cell.config.seed}"
                parts.append(folded(about, *shown, is_open=not parts))
                break
    if not parts:
        return None
    lead = note("The last inputs that a run wrote down; marked words were replaced.")
    return Section("examples", "Perturbed examples", joined([lead, *parts]))


def _example(one: Example) -> Html:
    return tag(
        "div",
        tag("p", one.heading, class_="note"),
        tag("p", tag("b", "before "), _marked(one.before)),
        tag("p", tag("b", "after "), _marked(one.after)),
        class_="change",
    )


def _marked(text: str) -> Html:
    """Return a text with its replaced words marked."""
    parts = _MARKED.split(text)
    return joined([tag("mark", part) if number % 2 else part for number, part in enumerate(parts)])


def cost_section(record: StudyRecord) -> Section | None:
    """Return the section on time and memory; `None` before the first result.

    Args:
        record: the study.
    """
    if not record.results:
        return None
    table = cost_table(record)
    total = sum(float(result["seconds"]) for result in record.results.values())
    said = f"The seconds of {len(record.results)} runs add up to {_duration(total)}."
    body = joined([tag("p", said), with_sources(table)])
    return Section("cost", "Time and memory", body, (table,))


def run_section(record: StudyRecord) -> Section:
    """Return the section with every run, those without a score first.

    Args:
        record: the study.
    """
    lost, table = lost_table(record), run_table(record)
    left = record.num_runs - record.num_finished - len(record.errors)
    said = [f"{record.num_finished} of {record.num_runs} runs have ended with a result."]
    if left:
        said.append(f"{left} are not finished.")
    strays = record.num_strays
    if strays:
        said.append(
            f"{strays} other folders in runs/ are of no run of this study as it is now: of other "
            "variants or seeds, or of an earlier version."
        )
    is_open = left or strays or lost.rows
    parts = [tag("p", " ".join(said), class_="warning" if is_open else None)]
    if lost.rows:
        parts += [tag("h3", lost.title), with_sources(lost)]
    parts.append(with_sources(table, is_folded=True))
    tables = (table, *([lost] if lost.rows else []))
    return Section("runs", "Runs", joined(parts), tables)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
