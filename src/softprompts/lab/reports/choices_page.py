"""The page of what a run's prompt chose: a chart for everything that exists, and the numbers.

It stands on the style of a study's report, so it follows light and dark, prints, and fits a phone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import groupby

from softprompts.lab.reports.choice_parts import UNITS, histogram, weight_table
from softprompts.lab.reports.choices import Choices
from softprompts.lab.reports.chosen import Chosen, Mixed
from softprompts.lab.reports.curves_of_runs import Curve
from softprompts.lab.reports.markup import Html, block, joined, tag
from softprompts.lab.reports.page import page
from softprompts.lab.reports.report_style import REPORT_STYLE
from softprompts.lab.reports.sections import Section, chart, folded, note, swatch, swatches
from softprompts.lab.reports.svg import Scale, cells, plot, point, upright

MOST_CLASSES = 60
"""Most classes whose weights are shown."""

_MOST_SAID = 5
_TITLES = {"position": "Position", "length": "Length"}
_LOOKS = {"position": "", "length": "second"}


def draw_page(choices: Choices) -> bytes:
    """Return choices as a page that needs nothing else; the same ones give the same bytes.

    Args:
        choices: what `read_choices` returned.

    Returns:
        The page, as UTF-8.
    """
    sections = [_training(choices), *_scored(choices)]
    numbers = folded("Numbers", block(_numbers(choices), "Numbers"))
    body = [_head(choices), *(section.as_html() for section in sections), numbers]
    return page(f"What {choices.title} chose", body, REPORT_STYLE).encode()


def _head(choices: Choices) -> Html:
    """Return whose choices these are, and what a reader must know of them."""
    is_done = choices.status == "finished"
    state = None if is_done else tag("span", choices.status, class_="state open")
    return tag(
        "header",
        tag("p", "softprompts choices", class_="over"),
        tag("h1", choices.title, " ", state),
        tag("p", "; ".join(choices.notes), class_="lead"),
    )


def _training(choices: Choices) -> Section:
    """Return the section on what was chosen over the updates."""
    learned = list(choices.windows[0].selected)
    charts = [_shares(choices, name) for name in learned]
    if "pool" in choices.parts:
        charts.append(_pool(choices))
    if learned:
        charts.append(_entropies(choices, learned))
    if any(window.temperature is not None for window in choices.windows):
        charts.append(_temperature(choices))
    maps = note("Maps: the fuller the colour, the larger the share; point at one to see it.")
    marks = [(swatch("rule", "selected"), "the selected state")] if choices.selected_step else []
    for name in learned:
        marks.append((swatch("bar", f"curve {_LOOKS[name]}"), f"entropy of the {name}"))
        if choices.held_out:
            marks.append((_dot(name), f"entropy of the {name} on held-out rows"))
    if learned:
        marks.append((swatch("bar", "curve most"), "the most there can be"))
    body = joined([swatches(*marks), maps, tag("div", *charts, class_="small broad")])
    return Section("training", "While training", body)


def _dot(name: str) -> Html:
    return tag("path", d="M13 7h0", class_=f"held {_LOOKS[name]}")


def _scored(choices: Choices) -> list[Section]:
    """Return the sections on what was chosen where the prompt was scored."""
    found, sections = choices.scored, []
    if not found:
        return []
    where, chosen = found[0]
    charts = []
    for name, selected in chosen.selected.items():
        others = [other.selected[name].shares for _, other in found[1:]]
        title = f"{_TITLES[name]}: {UNITS[name]}, {_inputs(sum(selected.counts))}"
        charts.append(histogram(title, [selected.shares], 0, outline=others[0] if others else ()))
    if charts:
        said = f"Columns: {where}." + "".join(f" Outline: {other}." for other, _ in found[1:])
        body = joined([note(said), tag("div", *charts, class_="small broad")])
        sections.append(Section("scored", "Where the prompt was scored", body))
    if chosen.pool is not None:
        body = _weights(chosen.pool, where)
        sections.append(Section("pool", "Weights of the pool", body))
    return sections


def _weights(pool: Mixed, where: str) -> Html:
    """Return the table of a pool's weights; of very many classes, those that differ most."""
    kept = pool.apart(MOST_CLASSES)
    rows = [
        ((name,), weights, stds)
        for place, (name, weights, stds) in enumerate(pool.lines)
        if not place or name in kept
    ]
    said = f"On {where}: mean weight of each set in percent"
    said += ", ± its standard deviation over inputs." if pool.stds else "."
    if len(pool.by_class) > MOST_CLASSES:
        said += f" The {MOST_CLASSES} of {len(pool.by_class)} classes that differ most."
    return joined([note(said), weight_table("Weights of the pool", ("inputs",), rows)])


def _shares(choices: Choices, name: str) -> Html:
    """Return the map of how often each value was drawn, over the updates."""
    lines = [window.selected[name].shares for window in choices.windows]
    title = f"{_TITLES[name]}: {UNITS[name]}"
    return _map(choices, title, lines, 0)


def _pool(choices: Choices) -> Html:
    """Return the map of the mean weight of each set, over the updates."""
    lines = [window.pool.weights for window in choices.windows if window.pool is not None]
    return _map(choices, "Pool: weight of each set", lines, 1)


def _map(choices: Choices, title: str, lines: Sequence[Sequence[float | None]], first: int) -> Html:
    titles = [
        f"{_updates(window)}: {_largest(line, first)}"
        for window, line in zip(choices.windows, lines, strict=True)
    ]
    most = max([one for line in lines for one in line if one is not None], default=0.0)
    label = f"{title}, full colour {100 * most:.0f} %"
    picture = cells(f"{label}. {titles[-1]}", lines, titles)
    marked = [_rule(choices)] if choices.selected_step else []
    ends = (str(first + len(lines[0]) - 1), str(first))
    return chart(label, joined([picture, *marked]), ends, _xs(choices), "tall")


def _rule(choices: Choices) -> Html:
    """Return the line of the selected state above a map, which goes on to its last window's end."""
    windows = choices.windows
    whole = len(windows) * windows[0].last_step
    x = 100 * ((choices.selected_step or 0) - 0.5) / whole
    line = upright(x, (0, 100), "selected")
    return tag(
        "svg",
        line,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        class_="plot over-map",
        aria_hidden="true",
    )


def _entropies(choices: Choices, learned: Sequence[str]) -> Html:
    """Return the chart of the selectors' entropy, on training and on held-out rows."""
    num_values = choices.about["length"] + 1
    most = math.log(num_values)
    y = Scale(0.0, 1.05 * most or 1.0)
    x = Scale(0.0, 1.02 * choices.num_updates)
    level = Curve((0, choices.num_updates), (most, most), (most, most), (most, most), (1, 1))
    curves, dots = [(level, "most")], []
    for name in learned:
        curves += [(one, _LOOKS[name]) for one in _curves(choices, _entropy_of(name))]
        for chosen in choices.held_out:
            entropy = chosen.selected[name].entropy
            if entropy is not None:
                at = (x.place(chosen.first_step), 100 - y.place(entropy))
                said = f"{name}, held-out rows, update {chosen.first_step}: {entropy:.3g}"
                dots.append(point(*at, f"held {_LOOKS[name]}", said))
    title = f"Entropy in nats; the most is log {num_values} = {most:.2f}"
    last = [f"{name} {_shown(choices.windows[-1].selected[name].entropy)}" for name in learned]
    picture = plot(
        f"{title}; at the end {', '.join(last)}", curves, x, y, [*dots, *_mark(choices, x)]
    )
    return chart(title, picture, (f"{y.high:.2g}", "0"), ("0", str(choices.num_updates)), "tall")


def _entropy_of(name: str) -> Callable[[Chosen], float | None]:
    return lambda window: window.selected[name].entropy


def _temperature(choices: Choices) -> Html:
    """Return the chart of the temperature."""
    found = [window.temperature for window in choices.windows if window.temperature is not None]
    x, y = Scale(0.0, 1.02 * choices.num_updates), Scale(0.0, 1.05 * max(found) or 1.0)
    curves = [(one, "") for one in _curves(choices, lambda window: window.temperature)]
    said = f"Temperature, from {found[0]:.3g} to {found[-1]:.3g}"
    picture = plot(said, curves, x, y, _mark(choices, x))
    return chart(said, picture, (f"{y.high:.2g}", "0"), ("0", str(choices.num_updates)), "tall")


def _mark(choices: Choices, x: Scale) -> list[Html]:
    step = choices.selected_step
    return [upright(x.place(step), (0, 100), "selected")] if step else []


def _curves(choices: Choices, value: Callable[[Chosen], float | None]) -> list[Curve]:
    """Return lines over the updates, which end at gaps."""
    curves = []
    for is_known, group in groupby(choices.windows, lambda window: value(window) is not None):
        if is_known:
            own = list(group)
            steps = tuple((window.first_step + window.last_step) / 2 for window in own)
            heights = tuple(number for window in own if (number := value(window)) is not None)
            curves.append(Curve(steps, heights, heights, heights, (1,) * len(own)))
    return curves


def _largest(line: Sequence[float | None], first: int) -> str:
    """Return the largest shares, in words."""
    known = [(share, first + number) for number, share in enumerate(line) if share]
    said = sorted(known, key=lambda one: (-one[0], one[1]))[:_MOST_SAID]
    return ", ".join(f"{number}: {100 * share:.0f} %" for share, number in said) or "–"


def _updates(window: Chosen) -> str:
    first, last = window.first_step, window.last_step
    return f"update {first}" if first == last else f"updates {first} to {last}"


def _xs(choices: Choices) -> tuple[str, str]:
    return "update 1", str(choices.windows[-1].last_step)


def _inputs(count: int) -> str:
    return f"{count} input{'s' * (count != 1)}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


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
