"""What prompts chose, on pages: one run on a page of its own, a study in its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, final

from softprompts.errors import SoftPromptsError
from softprompts.lab.reports.choices import Choices, read_last_choices
from softprompts.lab.reports.choices_figures import (
    MOST_CLASSES,
    choice_panels,
    draw_shares,
    draw_weights,
    share_hints,
)
from softprompts.lab.reports.chosen import UNITS, Chosen, Mixed
from softprompts.lab.reports.figures import as_markup
from softprompts.lab.reports.pages import MOST_ROWS, Head, Part, Section, page, side_by_side
from softprompts.lab.reports.score_sections import MOST_OPEN
from softprompts.lab.reports.study_record import StudyRecord, place_columns
from softprompts.lab.reports.tabular import Column, Table

_MOST_CLASSES = 12  # of a study's pool
_MOST_LARGE = 5
_MOST_PICTURES = 60
_MOST_SAID = 20
_LEAD = (
    "Shares of inputs on the reported split (held-out rows where that is not there yet), mean over "
    "seeds; points are seeds. softprompts choices RUN_DIR draws one run over its updates."
)


@final
@dataclass(frozen=True)
class Group:
    """What one variant chose on one task, by seed; `place` has the values of `place_columns`."""

    title: str
    place: Mapping[str, Any]
    found: Mapping[int, Chosen]

    @property
    def pools(self) -> dict[int, Mixed]:
        """How the pool was mixed, by seed; those left out whose weights are not all finite."""
        pools = {seed: one.pool for seed, one in self.found.items() if one.pool is not None}
        return {seed: one for seed, one in pools.items() if None not in one.weights}


def draw_page(choices: Choices) -> bytes:
    """Return choices as a page that needs nothing else; the same ones give the same bytes."""
    state = "" if choices.status == "finished" else choices.status
    largest = _largest(choices)
    first = [Part("advice", largest)] * bool(largest)
    head = Head("softprompts choices", choices.title, state, "; ".join(choices.notes), first)
    said = f"What {choices.title} chose. {largest}"
    picture = Part("picture", as_markup("choices", choice_panels(choices)), said)
    sections = [Section("figure", "Choices", [picture])]
    for where, chosen in choices.scored[:1]:
        if chosen.pool is not None:
            table = Part("table", _weight_table(chosen.pool, where))
            sections.append(Section("pool", "Weights of the pool", [table]))
    fold = Part("fold", (Part("code", _numbers(choices), "Numbers"),), "Numbers")
    sections.append(Section("numbers", "Numbers", [fold]))
    return page(f"What {choices.title} chose", head, sections).encode()


def _weight_table(pool: Mixed, where: str) -> Table:
    sets = [f"set {number}" for number, _ in enumerate(pool.weights, start=1)]
    columns = [Column("inputs", "inputs")]
    for name in sets:
        parts = (f"{name} mean", f"{name} std") if pool.stds else ()
        columns.append(Column(name, name, "score" if parts else "percent", parts))
    rows = []
    for name, means, stds in pool.few_lines(MOST_CLASSES):
        values = zip(means, stds, strict=True) if stds else means
        rows.append({"inputs": name, **dict(zip(sets, values, strict=True))})
    said = f"On {where}: mean weight of each set in percent"
    said += ", ± its standard deviation over inputs." if pool.stds else "."
    if len(pool.by_class) > MOST_CLASSES:
        said += f" The {MOST_CLASSES} of {len(pool.by_class)} classes that differ most."
    return Table("weights", "Weights of the pool", columns, rows, said)


def _largest(choices: Choices) -> str:
    """Return the largest shares where the prompt was scored, or last trained, in words."""
    last, said = choices.windows[-1], []
    where, chosen = (*choices.scored, (f"update {last.last_step}", last))[0]
    for name, selected in chosen.selected.items():
        shares = sorted(enumerate(selected.shares), key=lambda one: -one[1])[:_MOST_LARGE]
        values = ", ".join(f"{value}: {100 * share:.0f} %" for value, share in shares if share)
        said.append(f"On {where}, inputs by {name}: {values}.")
    return " ".join(said)


def _numbers(choices: Choices) -> str:
    """Return the choices as JSON, with a line per record."""
    lines = []
    for key, value in choices.as_json().items():
        text = json.dumps(value, allow_nan=False)
        if isinstance(value, list) and value:
            records = ",\n  ".join(json.dumps(record, allow_nan=False) for record in value)
            text = f"[\n  {records}\n ]"
        lines.append(f' "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}"


def choice_section(record: StudyRecord) -> Section | None:
    """Return the section with what prompts chose; `None` where nothing is chosen."""
    groups, problems = _choice_groups(record)
    pictures = [one for number, group in enumerate(groups) for one in _pictures(group, number)]
    if not pictures and not problems:
        return None
    parts = [Part("note", _LEAD), *(Part("warning", text) for text in problems)]
    parts += side_by_side(pictures, _MOST_PICTURES)
    parts += _mixtures([group for group in groups if group.pools])
    parts.append(Part("folded-table", _selector_table(record, groups)))
    parts.append(Part("folded-table", _mixture_table(record, groups)))
    return Section("choices", "What prompts chose", parts)


def _choice_groups(record: StudyRecord) -> tuple[list[Group], list[str]]:
    """Return what every variant chose on every task, and why runs could not be read."""
    groups, problems = [], []
    for entry in record.whole_entries:
        tasks: dict[str, dict[int, Chosen]] = {}
        for cell in entry.cells:
            try:
                own = read_last_choices(record.folder(cell))
            except SoftPromptsError as error:
                problems.append(f"What a run chose could not be read: {error}")
                continue
            for name, chosen in own.items():
                tasks.setdefault(name, {})[cell.config.seed] = chosen
        for name, found in tasks.items():
            task = name or (entry.task if len(record.tasks) > 1 else "")
            place = entry.place | ({"task": f"{name} (within {entry.task})"} if name else {})
            groups.append(Group(", ".join(filter(None, (entry.label, task))), place, found))
    return groups, problems


def _pictures(group: Group, number: int) -> list[Part]:
    pictures: list[Part] = []

    def add(what: str, seeds: Sequence[Sequence[float]], first: int, stds: Sequence[float]) -> None:
        name, title = f"choices-{number}-{len(pictures)}", f"{group.title}: {what}"
        said = "; ".join(share_hints(seeds, first, stds)[:_MOST_SAID])
        drawn = draw_shares(name, title, seeds, first, stds)
        pictures.append(Part("picture", drawn, f"{title}: {said}"))

    for name in UNITS:
        shares = [one.selected[name].shares for one in group.found.values() if name in one.selected]
        if shares:
            add(UNITS[name], shares, 0, ())
    pools = [
        [[value for value in of if value is not None] for of in (pool.weights, pool.stds)]
        for pool in group.pools.values()
    ]
    if pools:
        spread = [fmean(values) for values in zip(*(s for _, s in pools if s), strict=True)]
        add("weight of each set", [weights for weights, _ in pools], 1, spread)
    return pictures


def _mixtures(groups: Sequence[Group]) -> list[Part]:
    if not groups:
        return []
    said = "Mean weight of each set in percent"
    if any(pool.stds for group in groups for pool in group.pools.values()):
        said += "; upright lines above are its standard deviation over inputs, averaged over seeds"
    said += ". Each run numbers its sets: set 1 of one seed has nothing to do with that of another."
    parts = [Part("heading", "Mixtures"), Part("note", said)]
    for number, group in enumerate(groups):
        lines = {
            f"seed {seed}, {name}": weights
            for seed, pool in group.pools.items()
            for name, weights, _ in pool.few_lines(_MOST_CLASSES)
        }
        most = max(len(pool.by_class) for pool in group.pools.values())
        drawn = draw_weights(f"mixtures-{number}", list(lines), list(lines.values()))
        shown = [Part("picture", drawn, f"{group.title}: the table of mixtures has the weights.")]
        if most > _MOST_CLASSES:
            text = f"The {_MOST_CLASSES} of {most} classes that differ most."
            shown.insert(0, Part("note", text))
        is_open = len(groups) <= MOST_OPEN and len(lines) <= MOST_ROWS
        parts.append(Part("fold", shown, group.title, is_open))
    return parts


def _selector_table(record: StudyRecord, groups: Sequence[Group]) -> Table:
    columns = (
        *place_columns(record),
        Column("selector", "selector"),
        Column("value", "rows", "count"),
        Column("share", "share ± std over seeds", "score", ("mean", "std")),
        Column("num_runs", "runs", "count"),
    )
    rows = []
    for group in groups:
        for name in UNITS:
            seeds = [o.selected[name].shares for o in group.found.values() if name in o.selected]
            for value, shares in enumerate(zip(*seeds, strict=True)):
                share = (fmean(shares), stdev(shares) if len(shares) > 1 else None)
                row = {"selector": name, "value": value, "share": share, "num_runs": len(shares)}
                rows.append({**group.place, **row})
    said = "Shares of inputs in percent, with their standard deviation over seeds."
    return Table("choices", "Positions and lengths", columns, rows, said)


def _mixture_table(record: StudyRecord, groups: Sequence[Group]) -> Table:
    columns = (
        *place_columns(record),
        Column("seed", "seed", "count"),
        Column("inputs", "inputs"),
        Column("is_class", "of one class"),
        Column("set", "set", "count"),
        Column("weight", "weight ± std over inputs", "score", ("mean", "std")),
    )
    rows = [
        {
            **group.place,
            "seed": seed,
            "inputs": name,
            "is_class": "yes" if place else "no",
            "set": number,
            "weight": (weight, stds[number - 1] if stds else None),
        }
        for group in groups
        for seed, pool in group.pools.items()
        for place, (name, weights, stds) in enumerate(pool.lines)
        for number, weight in enumerate(weights, start=1)
    ]
    said = "Mean weights in percent, with their standard deviation over inputs, not over seeds."
    return Table("mixtures", "Mixtures", columns, rows, said)
