"""The page of what a run's prompt chose: its figure, the weights of its pool, and all numbers."""

from __future__ import annotations

import json

from softprompts.lab.reports.choices import Choices
from softprompts.lab.reports.choices_figures import MOST_CLASSES, draw_inline
from softprompts.lab.reports.pages import Head, Part, Section, page
from softprompts.lab.reports.tabular import Column, Table

_MOST_SAID = 5


def draw_page(choices: Choices) -> bytes:
    """Return choices as a page that needs nothing else; the same ones give the same bytes.

    Args:
        choices: what `read_choices` returned.

    Returns:
        The page, as UTF-8.
    """
    state = "" if choices.status == "finished" else choices.status
    head = Head("softprompts choices", choices.title, state, lead="; ".join(choices.notes))
    said = f"What {choices.title} chose. {_largest(choices)}"
    sections = [Section("figure", "Choices", (Part("picture", draw_inline(choices), said),))]
    for where, chosen in choices.scored[:1]:
        if chosen.pool is not None:
            parts = (Part("table", _weight_table(choices, where)),)
            sections.append(Section("pool", "Weights of the pool", parts))
    fold = Part("fold", (Part("code", _numbers(choices), "Numbers"),), "Numbers")
    sections.append(Section("numbers", "Numbers", (fold,)))
    return page(f"What {choices.title} chose", head, sections).encode()


def _weight_table(choices: Choices, where: str) -> Table:
    """Return the weights of a pool with their spread, a row per label."""
    pool = choices.scored[0][1].pool
    assert pool is not None
    sets = [f"set {number}" for number, _ in enumerate(pool.weights, start=1)]
    kind = "score" if pool.stds else "percent"
    columns = [Column("inputs", "inputs")]
    for name in sets:
        parts = (f"{name} mean", f"{name} std") if pool.stds else ()
        columns.append(Column(name, name, kind, parts))
    rows = tuple(
        {
            "inputs": name,
            **dict(zip(sets, zip(means, stds, strict=True) if stds else means, strict=True)),
        }
        for name, means, stds in pool.few_lines(MOST_CLASSES)
    )
    said = f"On {where}: mean weight of each set in percent"
    said += ", ± its standard deviation over inputs." if pool.stds else "."
    if len(pool.by_class) > MOST_CLASSES:
        said += f" The {MOST_CLASSES} of {len(pool.by_class)} classes that differ most."
    return Table("weights", "Weights of the pool", tuple(columns), rows, said)


def _largest(choices: Choices) -> str:
    """Return the largest shares where the prompt was scored, or last trained, in words."""
    last = choices.windows[-1]
    where, chosen = (*choices.scored, (f"update {last.last_step}", last))[0]
    said = []
    for name, selected in chosen.selected.items():
        shares = sorted(enumerate(selected.shares), key=lambda one: -one[1])[:_MOST_SAID]
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
