"""The figures of what prompts chose: of a run over its updates, and of a study over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import NDArray

from softprompts.lab.reports.choices import Choices
from softprompts.lab.reports.chosen import UNITS, Mixed, Selected, Weights
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
    as_file,
    as_markup,
    hint,
    stack,
)
from softprompts.lab.reports.pages import printable, short

MOST_CLASSES = 60
MOST_SETS_WITH_NUMBERS = 16
LONGEST_LABEL = 20
LONGEST_PLACE = 40

Matrix = NDArray[np.float64]

_LOOKS: Final = {"position": (BLUE, "-", "o"), "length": (GREEN, "--", "s")}
"""Colour, line and marker of a selector."""


def draw_choices(choices: Choices, format: str = "svg") -> bytes:
    """Draw what a run's prompt chose, as `svg` or `png`.

    The same choices give the same bytes: nothing depends on the date, on settings of the user or
    on what was drawn before.
    """
    return as_file(partial(build_figure, choices), format)


def build_figure(choices: Choices, spell: Spelling = printable) -> Figure:
    """Return the figure itself; call it and draw it inside `figures.style`."""
    about = choices.about
    method, task = (short(spell(str(about[key])), LONGEST_LABEL) for key in ("method", "task"))
    title = f"{method} on {task}, seed {about['seed']}"
    return stack(choice_panels(choices, spell), title, choices.notes)


def draw_shares(
    name: str, title: str, seeds: Sequence[Sequence[float]], first: int, stds: Sequence[float] = ()
) -> Markup:
    """Return shares as bars: their mean over seeds, and a dot for each of several seeds.

    `first` is the number of the first bar; `stds` are over inputs, where they are known.
    """

    def draw(axes: Axes) -> None:
        shares = 100 * np.array(seeds)
        means = shares.mean(axis=0)
        places = np.arange(first, first + len(means))
        bars = axes.bar(places, means, color=BLUE, alpha=0.75)
        if stds:
            axes.errorbar(places, means, 100 * np.array(stds), fmt="none", ecolor=INK)
        if len(seeds) > 1:
            axes.plot(np.tile(places, len(seeds)), shares.ravel(), "o", color=INK, markersize=3)
        for patch, text in zip(bars, share_hints(seeds, first, stds), strict=True):
            hint(patch, text)
        axes.set_title(short(printable(title), 52))
        _finish_shares(axes, "%")

    return as_markup(name, [Panel(1.1, draw, 0, 0.5, 0.15, 0.3)])


def share_hints(seeds: Sequence[Sequence[float]], first: int, stds: Sequence[float]) -> list[str]:
    """Return what bars say: their mean, the spread over inputs, and single seeds."""
    said = []
    for place, values in enumerate(zip(*seeds, strict=True)):
        parts = [f"{first + place}: {100 * fmean(values):.0f} %"]
        parts += [f"± {100 * one:.0f} over inputs" for one in stds[place : place + 1]]
        if len(values) > 1:
            parts.append(f"({', '.join(f'{100 * one:.0f}' for one in values)})")
        said.append(" ".join(parts))
    return said


def draw_weights(name: str, labels: Sequence[str], weights: Sequence[Weights]) -> Markup:
    """Return the mean weights of a pool's sets as a map with numbers."""
    spelled = [short(printable(label), LONGEST_PLACE) for label in labels]
    return as_markup(name, [_weight_panel(spelled, weights, ("Weights of the pool",))])


def choice_panels(choices: Choices, spell: Spelling = printable) -> list[Panel]:
    """Return everything that there is to draw."""
    windows = choices.windows
    learned = list(windows[0].selected)
    scored = [(short(spell(where), LONGEST_PLACE), chosen) for where, chosen in choices.scored]
    panels = []
    for name in learned:
        shares = np.array([window.selected[name].shares for window in windows], float)
        words = (f"{name.capitalize()} while training", UNITS[name], "share of inputs")
        height = 1.2 + 0.01 * min(choices.about["length"], 60)
        panels.append(Panel(height, partial(_draw_map, choices, shares, words, 0)))
    if learned:
        num_lines = 1 + len(learned) * (1 + bool(choices.held_out)) + _has_temperature(choices)
        panels.append(Panel(1.3, partial(_draw_entropy, choices), math.ceil(num_lines / 2)))
    for name in learned if scored else ():
        found = [(where, chosen.selected[name]) for where, chosen in scored]
        panels.append(Panel(1.1, partial(_draw_histogram, name, found), len(found)))
    if "pool" in choices.parts:
        weights = np.array([window.pool.weights for window in windows if window.pool], float)
        words = ("Pool while training", "set of rows", "mean weight")
        height = 0.6 + 0.06 * min(weights.shape[1], 30)
        panels.append(Panel(height, partial(_draw_map, choices, weights, words, 1)))
        panels += [_class_panel(where, one.pool, spell) for where, one in scored[:1] if one.pool]
    return panels


def _draw_map(
    choices: Choices, values: Matrix, words: tuple[str, str, str], first: int, axes: Axes
) -> None:
    """Draw one column per window, and the colours' meaning beside it."""
    title, what, unit = words
    count, most = values.shape[1], _largest(values)
    right = len(values) * choices.windows[0].last_step + 0.5  # may reach past the last update
    ends = (0.5, right, first - 0.5, first + count - 0.5)
    image = axes.imshow(values.T, extent=ends, aspect="auto", origin="lower", vmin=0, vmax=most)
    axes.set(title=title, ylabel=what)
    add_colour_bar(image, unit)
    _finish_updates(choices, axes)
    if first:
        axes.set_yticks(_places_of_sets(count, 8))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=ROUND_STEPS))


def _finish_updates(choices: Choices, axes: Axes) -> None:
    """Give axes their updates, and the line of the selected state."""
    axes.set(xlim=(0.5, choices.num_updates + 0.5), xlabel="update")
    locator = MaxNLocator(6, integer=True) if choices.num_updates > 1 else FixedLocator([1])
    axes.xaxis.set_major_locator(locator)
    if choices.selected_step:
        axes.axvline(choices.selected_step, color="white", linewidth=2.2)
        axes.axvline(choices.selected_step, color="black", linewidth=1.2, linestyle=":")


def _draw_entropy(choices: Choices, axes: Axes) -> None:
    """Draw the selectors' entropy, on training and held-out rows, and the temperature."""
    windows, num_values = choices.windows, choices.about["length"] + 1
    most = math.log(num_values)
    label = f"most, log {num_values} = {most:.2f}"
    lines: list[Any] = [axes.axhline(most, color=GREY, linewidth=1, label=label)]
    _finish_updates(choices, axes)
    middles = [(window.first_step + window.last_step) / 2 for window in windows]
    dot = "" if len(windows) > 1 else "."
    for name in windows[0].selected:
        colour, line, marker = _LOOKS[name]
        heights, held = (
            np.array([one.selected[name].entropy for one in of], float)
            for of in (windows, choices.held_out)
        )
        lines += axes.plot(middles, heights, f"{dot}{line}", color=colour, label=name)
        if choices.held_out:
            label = f"{name}, held-out rows"
            steps = [chosen.first_step for chosen in choices.held_out]
            own: dict[str, Any] = {"markersize": 4.5, "markerfacecolor": "white", "clip_on": False}
            lines += axes.plot(steps, held, marker, color=colour, label=label, **own)
    axes.set(ylim=(0, most * 1.08 or 1), ylabel="entropy, nats")
    if _has_temperature(choices):
        twin, heights = axes.twinx(), np.array([window.temperature for window in windows], float)
        lines += twin.plot(middles, heights, f"{dot}-.", color=ORANGE, label="temperature")
        twin.set(ylim=(0, _largest(heights) * 1.08), ylabel="temperature")
        twin.yaxis.set_major_locator(MaxNLocator(4))
        twin.spines["right"].set_visible(True)
    add_legend(axes, lines, "Entropy and temperature of the choice", 2)


def _has_temperature(choices: Choices) -> bool:
    return any(window.temperature is not None for window in choices.windows)


def _draw_histogram(name: str, found: Sequence[tuple[str, Selected]], axes: Axes) -> None:
    """Draw how inputs were spread where the prompt was scored: bars, then an outline."""
    edges = np.arange(len(found[0][1].counts) + 1) - 0.5
    lines: list[Any] = []
    for where, selected in found:
        count = sum(selected.counts)
        bars = {"color": _LOOKS[name][0], "fill": True, "alpha": 0.75}
        look: dict[str, Any] = {"color": INK, "linewidth": 1.2} if lines else bars
        label = f"{where}, {count} input{'s' * (count != 1)}"
        lines.append(axes.stairs(selected.shares, edges, label=label, **look))
    axes.set(xlim=(edges[0] - 0.1, edges[-1] + 0.1), xlabel=UNITS[name])
    _finish_shares(axes, "share of inputs")
    add_legend(axes, lines, f"{name.capitalize()} where the prompt was scored", 1)


def _finish_shares(axes: Axes, unit: str) -> None:
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(11, integer=True, steps=ROUND_STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel(unit)


def _class_panel(where: str, pool: Mixed, spell: Spelling) -> Panel:
    """Return the panel of a pool's weights per class; of very many, those that differ most."""
    num_classes = len(pool.by_class)
    titles = ["Weights of the pool", f"on {where}" + ", by class" * bool(num_classes)]
    if num_classes > MOST_CLASSES:
        titles.append(f"the {MOST_CLASSES} of {num_classes} classes that differ most")
    names, weights, _ = zip(*pool.few_lines(MOST_CLASSES), strict=True)
    return _weight_panel([short(spell(name), LONGEST_LABEL) for name in names], weights, titles)


def _weight_panel(
    labels: Sequence[str], weights: Sequence[Weights], titles: Sequence[str]
) -> Panel:
    """Return a panel of weights with a row per label, with numbers where they fit."""
    values = np.array(weights, float)
    most, count = _largest(values), values.shape[1]

    def draw(axes: Axes) -> None:
        image = axes.imshow(values, aspect="auto", vmin=0, vmax=most, origin="upper")
        axes.set_title("\n".join(titles), fontsize=9, linespacing=1.3)
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(left=False)
        axes.axhline(0.5, color="white", linewidth=2.5)
        places = _places_of_sets(count, 16)
        axes.set_xticks([place - 1 for place in places], [str(place) for place in places])
        axes.set_xlabel("set of rows")
        if count > MOST_SETS_WITH_NUMBERS:
            add_colour_bar(image, "mean weight")
            return
        axes.set_xlabel("set of rows; weights in percent")
        for (row, column), weight in np.ndenumerate(values):
            text = "–" if np.isnan(weight) else f"{100 * weight:.0f}"
            colour, size = "white" if weight < 0.55 * most else "black", 8 if count <= 10 else 7
            axes.text(column, row, text, va="center", ha="center", color=colour, fontsize=size)

    return Panel(0.21 * len(labels), draw, len(titles) - 1, 0.25 + 0.075 * max(map(len, labels)))


def _places_of_sets(size: int, most: int) -> list[int]:
    """Return the numbers of sets to write at an axis, from 1."""
    return list(range(1, size + 1, math.ceil(size / most)))


def _largest(values: Matrix) -> float:
    """Return the largest number; 1 where none is above 0."""
    return float(np.nanmax(values, initial=0.0)) or 1.0
