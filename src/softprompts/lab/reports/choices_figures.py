"""The figures of what prompts chose: of a run over its updates, and of a study over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import NDArray

from softprompts.lab.reports.choices import Choices
from softprompts.lab.reports.chosen import Chosen, Selected, Weights
from softprompts.lab.reports.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    ROUND_STEPS,
    Panel,
    Spelling,
    add_colour_bar,
    add_legend,
    drawable,
    hint,
    inline,
    save,
    stack,
    style,
)
from softprompts.lab.reports.spelling import printable, short

MOST_CLASSES = 60
MOST_SETS_WITH_NUMBERS = 16
LONGEST_LABEL = 20
LONGEST_PLACE = 40

Matrix = NDArray[np.float64]


@final
@dataclass(frozen=True)
class _Look:
    """How a selector is shown: words, colour, line and marker."""

    title: str
    unit: str
    colour: str
    line: str
    marker: str


_LOOKS = {
    "position": _Look("Position", "rows in front", BLUE, "-", "o"),
    "length": _Look("Length", "active rows", GREEN, "--", "s"),
}


def draw_choices(choices: Choices, format: str = "svg") -> bytes:
    """Draw what a run's prompt chose.

    The same choices give the same bytes: nothing depends on the date, on settings of the user or
    on what was drawn before.

    Args:
        choices: what `read_choices` returned.
        format: `svg` or `png`.

    Returns:
        The content of the picture's file.
    """
    spell = drawable if format == "png" else printable
    with style():
        return save(build_figure(choices, spell), format)


def build_figure(choices: Choices, spell: Spelling = printable) -> Figure:
    """Return the figure itself; call it and draw it inside `figures.style`.

    Args:
        choices: what `read_choices` returned.
        spell: turns text from data into text that the format can show.
    """
    about = choices.about
    method, task = (short(spell(str(about[key])), LONGEST_LABEL) for key in ("method", "task"))
    title = f"{method} on {task}, seed {about['seed']}"
    return stack(_panels(choices, spell), title, choices.notes)


def draw_inline(choices: Choices) -> Markup:
    """Return the figure as markup of a page, without its title.

    Args:
        choices: what `read_choices` returned.
    """
    with style():
        return inline(stack(_panels(choices, printable)), "choices")


def draw_shares(
    name: str, title: str, seeds: Sequence[Sequence[float]], first: int, stds: Sequence[float] = ()
) -> Markup:
    """Return shares as bars: their mean over seeds, and a dot for each of several seeds.

    Args:
        name: the figure's name on its page.
        title: its title.
        seeds: the shares of each seed.
        first: the number of the first bar.
        stds: standard deviation over inputs of each bar, where known.
    """

    def draw(axes: Axes) -> None:
        shares = 100 * np.array(seeds)
        means = shares.mean(axis=0)
        places = np.arange(first, first + len(means))
        bars = axes.bar(places, means, color=BLUE, alpha=0.75)
        if stds:
            axes.errorbar(places, means, 100 * np.array(stds), fmt="none", ecolor=INK, capsize=0)
        if len(seeds) > 1:
            axes.plot(np.tile(places, len(seeds)), shares.ravel(), "o", color=INK, markersize=3)
        for patch, text in zip(bars, share_hints(seeds, first, stds), strict=True):
            hint(patch, text)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(11, integer=True, steps=ROUND_STEPS))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylabel("%")
        axes.set_title(short(printable(title), 52))

    with style():
        return inline(stack([Panel(1.1, draw, 0, 0.5, 0.15)]), name)


def share_hints(seeds: Sequence[Sequence[float]], first: int, stds: Sequence[float]) -> list[str]:
    """Return what bars say: their mean, the spread over inputs, and single seeds.

    Args:
        seeds: the shares of each seed.
        first: the number of the first bar.
        stds: standard deviation over inputs of each bar, where known.
    """
    said = []
    for place, values in enumerate(zip(*seeds, strict=True)):
        parts = [f"{first + place}: {100 * fmean(values):.0f} %"]
        parts += [f"± {100 * one:.0f} over inputs" for one in stds[place : place + 1]]
        if len(values) > 1:
            parts.append(f"({', '.join(f'{100 * one:.0f}' for one in values)})")
        said.append(" ".join(parts))
    return said


def draw_weights(name: str, labels: Sequence[str], weights: Sequence[Weights]) -> Markup:
    """Return the mean weights of a pool's sets as a map with numbers.

    Args:
        name: the figure's name on its page.
        labels: what each row is of.
        weights: its weights.
    """
    spelled = [short(printable(label), LONGEST_PLACE) for label in labels]
    rows = np.array([_floats(line) for line in weights])
    with style():
        return inline(stack([_weight_panel(spelled, rows, ("Weights of the pool",))]), name)


def _panels(choices: Choices, spell: Spelling) -> list[Panel]:
    """Return a panel for everything that exists."""
    learned = [name for name in choices.parts if name in _LOOKS]
    scored = [(short(spell(where), LONGEST_PLACE), chosen) for where, chosen in choices.scored]
    height = 1.2 + 0.01 * min(choices.about["length"], 60)
    panels = [Panel(height, partial(_draw_shares, choices, name)) for name in learned]
    if learned:
        num_lines = 1 + len(learned) * (1 + bool(choices.held_out)) + _has_temperature(choices)
        panels.append(Panel(1.3, partial(_draw_entropy, choices), math.ceil(num_lines / 2)))
    for name in learned if scored else ():
        found = [(where, chosen.selected[name]) for where, chosen in scored]
        panels.append(Panel(1.1, partial(_draw_histogram, name, found), len(found)))
    if "pool" in choices.parts:
        weights = _weights(choices.windows)
        height = 0.6 + 0.06 * min(len(weights), 30)
        panels.append(Panel(height, partial(_draw_pool, choices, weights)))
        panels += [_class_panel(where, chosen, spell) for where, chosen in scored[:1]]
    return panels


def _draw_shares(choices: Choices, name: str, axes: Axes) -> None:
    """Draw how often each value was drawn, over the updates."""
    look = _LOOKS[name]
    shares = np.array([window.selected[name].shares for window in choices.windows]).T
    axes.set_title(f"{look.title} while training")
    axes.set_ylabel(look.unit)
    _draw_heatmap(choices, shares, axes, "share of inputs")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=ROUND_STEPS))


def _draw_pool(choices: Choices, weights: Matrix, axes: Axes) -> None:
    """Draw the mean weight of each set over the updates."""
    axes.set_title("Pool while training")
    axes.set_ylabel("set of rows")
    _draw_heatmap(choices, weights, axes, "mean weight", first=1)
    axes.set_yticks(_places_of_sets(len(weights), 8))


def _draw_heatmap(choices: Choices, values: Matrix, axes: Axes, unit: str, first: int = 0) -> None:
    """Draw one column per window, and the colours' meaning beside it."""
    size = choices.windows[0].last_step
    right = len(choices.windows) * size + 0.5  # the last window may reach past the last update
    image = axes.imshow(
        values,
        extent=(0.5, right, first - 0.5, first + len(values) - 0.5),
        aspect="auto",
        origin="lower",
        vmin=0,
        vmax=_largest(values),
    )
    add_colour_bar(image, unit)
    _finish_updates(choices, axes)


def _finish_updates(choices: Choices, axes: Axes) -> None:
    """Give axes their updates, and the line of the selected state."""
    axes.set_xlim(0.5, choices.num_updates + 0.5)
    locator = MaxNLocator(6, integer=True) if choices.num_updates > 1 else FixedLocator([1])
    axes.xaxis.set_major_locator(locator)
    axes.set_xlabel("update")
    if choices.selected_step:
        axes.axvline(choices.selected_step, color="white", linewidth=2.2)
        axes.axvline(choices.selected_step, color="black", linewidth=1.2, linestyle=":")


def _draw_entropy(choices: Choices, axes: Axes) -> None:
    """Draw the selectors' entropy, on training and held-out rows, and the temperature."""
    num_values = choices.about["length"] + 1
    most = math.log(num_values)
    label = f"most, log {num_values} = {most:.2f}"
    lines = [axes.axhline(most, color=GREY, linewidth=1, label=label)]
    _finish_updates(choices, axes)
    for name in choices.windows[0].selected:
        lines += _draw_entropy_of(choices, name, axes)
    axes.set_ylim(0, most * 1.08 or 1)
    axes.set_ylabel("entropy, nats")
    if _has_temperature(choices):
        lines += _draw_temperature(choices, axes)
    add_legend(axes, lines, "Entropy and temperature of the choice", 2)


def _draw_entropy_of(choices: Choices, name: str, axes: Axes) -> list[Any]:
    """Draw the entropy of one selector: a line, and marks for the held-out rows."""
    look = _LOOKS[name]
    many = len(choices.windows) > 1
    own: dict[str, Any] = {
        "color": look.colour,
        "linestyle": look.line,
        "marker": "" if many else ".",
    }
    lines = axes.plot(_middles(choices), _entropies(choices.windows, name), label=name, **own)
    if choices.held_out:
        lines += axes.plot(
            [chosen.first_step for chosen in choices.held_out],
            _entropies(choices.held_out, name),
            linestyle="",
            color=look.colour,
            marker=look.marker,
            markersize=4.5,
            markerfacecolor="white",
            clip_on=False,
            label=f"{name}, held-out rows",
        )
    return list(lines)


def _has_temperature(choices: Choices) -> bool:
    return any(window.temperature is not None for window in choices.windows)


def _draw_temperature(choices: Choices, axes: Axes) -> list[Any]:
    """Draw the temperature on an axis of its own."""
    heights = _floats([window.temperature for window in choices.windows])
    twin = axes.twinx()
    marker = "" if len(heights) > 1 else "."
    own: dict[str, Any] = {"color": ORANGE, "linestyle": "-.", "marker": marker}
    lines = twin.plot(_middles(choices), heights, label="temperature", **own)
    twin.set_ylim(0, _largest(heights) * 1.08)
    twin.set_ylabel("temperature")
    twin.yaxis.set_major_locator(MaxNLocator(4))
    twin.spines["right"].set_visible(True)
    return list(lines)


def _draw_histogram(name: str, found: Sequence[tuple[str, Selected]], axes: Axes) -> None:
    """Draw how inputs were spread where the prompt was scored: bars, then an outline."""
    look = _LOOKS[name]
    edges = np.arange(len(found[0][1].counts) + 1) - 0.5
    lines: list[Any] = []
    for place, (where, selected) in enumerate(found):
        label = f"{where}, {sum(selected.counts)} input{'s' * (sum(selected.counts) != 1)}"
        own: dict[str, Any] = {"color": "black", "linewidth": 1.2}
        if place == 0:
            own = {"color": look.colour, "fill": True, "alpha": 0.75}
        lines.append(axes.stairs(selected.shares, edges, label=label, **own))
    axes.set_xlim(edges[0] - 0.1, edges[-1] + 0.1)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(11, integer=True, steps=ROUND_STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(look.unit)
    axes.set_ylabel("share of inputs")
    add_legend(axes, lines, f"{look.title} where the prompt was scored", 1)


def _class_panel(where: str, chosen: Chosen, spell: Spelling) -> Panel:
    """Return the panel of a pool's weights per class; of very many, those that differ most."""
    assert chosen.pool is not None
    num_classes = len(chosen.pool.by_class)
    titles = ["Weights of the pool", f"on {where}" + ", by class" * bool(num_classes)]
    if num_classes > MOST_CLASSES:
        titles.append(f"the {MOST_CLASSES} of {num_classes} classes that differ most")
    names, weights, _ = zip(*chosen.pool.few_lines(MOST_CLASSES), strict=True)
    labels = [short(spell(name), LONGEST_LABEL) for name in names]
    return _weight_panel(labels, np.array([_floats(line) for line in weights]), titles)


def _weight_panel(labels: Sequence[str], weights: Matrix, titles: Sequence[str]) -> Panel:
    """Return a panel of weights with a row per label."""
    left = 0.25 + 0.075 * max(map(len, labels))
    paint = partial(_draw_classes, labels, weights, titles)
    return Panel(0.21 * len(labels), paint, len(titles) - 1, left)


def _draw_classes(
    labels: Sequence[str], weights: Matrix, titles: Sequence[str], axes: Axes
) -> None:
    """Draw a pool's weights per class, with numbers where they fit."""
    most = _largest(weights)
    image = axes.imshow(weights, aspect="auto", vmin=0, vmax=most, origin="upper")
    axes.set_title("\n".join(titles), fontsize=9, linespacing=1.3)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(left=False)
    axes.axhline(0.5, color="white", linewidth=2.5)
    places = _places_of_sets(weights.shape[1], 16)
    axes.set_xticks([place - 1 for place in places], [str(place) for place in places])
    axes.set_xlabel("set of rows")
    if weights.shape[1] > MOST_SETS_WITH_NUMBERS:
        add_colour_bar(image, "mean weight")
        return
    axes.set_xlabel("set of rows; weights in percent")
    size = 8 if weights.shape[1] <= 10 else 7
    for (row, column), weight in np.ndenumerate(weights):
        text = "–" if np.isnan(weight) else f"{100 * weight:.0f}"
        colour = "white" if weight < 0.55 * most else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _places_of_sets(size: int, most: int) -> list[int]:
    """Return the numbers of sets to write at an axis, from 1."""
    return list(range(1, size + 1, math.ceil(size / most)))


def _middles(choices: Choices) -> list[float]:
    return [(window.first_step + window.last_step) / 2 for window in choices.windows]


def _weights(windows: Sequence[Chosen]) -> Matrix:
    """Return the pool's weights: a row per set, a column per window."""
    return np.array([_floats(window.pool.weights) for window in windows if window.pool]).T


def _entropies(chosen: Sequence[Chosen], name: str) -> Matrix:
    return _floats([one.selected[name].entropy for one in chosen])


def _floats(values: Sequence[float | None]) -> Matrix:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _largest(values: Matrix) -> float:
    """Return the largest number; 1 where none is above 0."""
    return float(np.nanmax(values, initial=0.0)) or 1.0
