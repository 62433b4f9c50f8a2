"""The figures of a study's report: rows of intervals, curves over updates, curves over values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from softprompts.lab.reports.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LINE,
    MARK,
    ORANGE,
    ROUND_STEPS,
    SOFT,
    Panel,
    add_legend,
    as_markup,
    hint,
    style,
)
from softprompts.lab.reports.pages import printable, short
from softprompts.lab.reports.records import Curve
from softprompts.lab.reports.robustness import number, start_of_axis

_LONGEST = 26
_TALL = 0.24  # a row
_CLOSE = 0.014  # dots nearer than this share of the axis stand above each other
_COLOURS = (BLUE, ORANGE, GREEN)


@final
@dataclass(frozen=True)
class Scale:
    """An axis from its left or lower end to the other."""

    low: float
    high: float
    is_logarithmic: bool = False

    def beyond(self, ends: Sequence[float] | None) -> str:
        """Return words on an interval that is drawn only in part, to end a sentence; else ""."""
        is_whole = ends is None or (self.low <= ends[0] and ends[1] <= self.high)
        return "" if is_whole else ", beyond the axis"

    def as_share(self) -> Scale:
        """Return its part from 0 to 1."""
        return Scale(max(0.0, self.low), min(1.0, self.high))

    def inside(self, value: float) -> float:
        """Return the nearest value that is on the axis."""
        return min(max(value, self.low), self.high)


@final
@dataclass(frozen=True)
class Row:
    """A row of a figure: a value with intervals, and single values as dots.

    Attributes:
        text: what stands beside it.
        said: what it says, in words.
        hints: what is shown where a reader points at a dot.
        is_shown: whether it is more than noise.
    """

    label: str
    text: str
    said: str
    value: float | None
    interval: Sequence[float] | None = None
    wide: Sequence[float] | None = None
    dots: Sequence[float] = ()
    hints: Sequence[str] = ()
    is_shown: bool = True


def scale_around(values: Sequence[float], share: float = 0.04) -> Scale:
    """Return an axis that holds all values, from 0 to 1 without any.

    Its margin on each side is a share of their span.
    """
    held = [value for value in values if math.isfinite(value)]
    low, high = (min(held), max(held)) if held else (0.0, 1.0)
    margin = share * (high - low) or max(0.01, abs(high) * 0.05)
    return Scale(low - margin, high + margin)


def draw_rows(
    name: str, rows: Sequence[Row], scale: Scale, lines: Mapping[str, float], unit: str
) -> Markup:
    """Return rows with their values and intervals, one under the other.

    `lines` are values that upright lines stand at, by what they are; the unit is `%`, `points` or
    `times`.
    """
    labels = [short(printable(row.label), _LONGEST) for row in rows]

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            _draw_row(axes, place, row, scale)
            across = axes.get_yaxis_transform()
            axes.text(1.02, place, row.text, va="center", fontsize=8, transform=across)
        for what, value in lines.items():
            dashes = "--" if what == "majority class" else "-"
            line = axes.axvline(value, color=GREY, linewidth=0.9, linestyle=dashes, zorder=0)
            hint(line, f"{what}: {value:g}" if unit == "times" else f"{what}: {100 * value:.1f}")
        _finish_rows(axes, labels, scale, unit)

    with style():
        widths = [TextPath((0, 0), text, size=8).get_extents().width / 72 for text in labels]
    tall = _TALL + 0.08 * any("\n" in row.text for row in rows)
    right = 0.75 if unit == "%" else 1.35
    panel = Panel(tall * len(rows) + 0.1, draw, -1, 0.12 + min(1.63, max(widths)), right, 0.25)
    return as_markup(name, [panel])


def _finish_rows(axes: Axes, labels: Sequence[str], scale: Scale, unit: str) -> None:
    if scale.is_logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    axes.set(xlim=(scale.low, scale.high), ylim=(len(labels) - 0.4, -0.6))
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, unit)))


def _draw_row(axes: Axes, place: int, row: Row, scale: Scale) -> None:
    """Draw intervals, dots, and the value over them."""
    if row.value is None:
        return
    colour = BLUE if row.is_shown else GREY
    near = {"color": SOFT, "linewidth": 6.0} if row.dots else {"color": colour}
    for ends, look in ((row.wide, {"color": LINE, "linewidth": 2.0}), (row.interval, near)):
        if ends is None:
            continue
        low, high = map(scale.inside, ends)
        (line,) = axes.plot([low, high], [place, place], solid_capstyle="butt", **look)
        hint(line, row.said)
        cut = [(low, "<")] * (ends[0] < scale.low) + [(high, ">")] * (ends[1] > scale.high)
        for x, head in cut:
            axes.plot([x], [place], head, color=GREY, markersize=4, clip_on=False)
    for x, y, text in zip(row.dots, _heights(row.dots, scale), row.hints, strict=True):
        (dot,) = axes.plot([x], [place + y], "o", color=INK, markersize=4, alpha=0.55, mew=0)
        hint(dot, text)
    (mark,) = axes.plot([row.value], [place], "|", color=colour, markersize=11, mew=1.8)
    hint(mark, row.said)


def _heights(dots: Sequence[float], scale: Scale) -> list[float]:
    """Return heights at which dots do not hide each other."""
    near = _CLOSE * (scale.high - scale.low)
    heights: dict[int, float] = {}
    for one in sorted(range(len(dots)), key=dots.__getitem__):
        taken = {y for other, y in heights.items() if dots[one] - dots[other] < near}
        free = [y for y in (0.0, -0.2, 0.2, -0.1, 0.1, -0.3, 0.3) if y not in taken]
        heights[one] = free[0] if free else 0.0
    return [heights[one] for one in range(len(dots))]


def _tick(value: float, unit: str) -> str:
    if unit == "times":
        return f"{value:g}×"
    sign = "+" if unit == "points" and value > 0 else ""
    return f"{sign}{100 * value:.4g}".replace("-", "−")


def draw_curves(
    name: str,
    title: str,
    curves: Sequence[tuple[str, Sequence[Curve | None]]],
    base: tuple[str, Sequence[Curve | None]] | None,
    axes_of: Sequence[tuple[str, float, Scale, float]],
) -> Markup:
    """Return up to three curves over the updates with their bands, a panel for each kind of value.

    Labels stand before a curve per panel; the base, which they are compared with, is grey.
    `axes_of` says per panel what its values are, their unit, their axis, and the last update.
    """
    looks = [(label, of, colour) for (label, of), colour in zip(curves, _COLOURS, strict=False)]
    if base is not None:
        looks.insert(0, (*base, GREY))
    panels = []
    for place, about in enumerate(axes_of):
        shown = [(label, curve, colour) for label, of, colour in looks if (curve := of[place])]
        if shown:
            panels.append(Panel(1.3, partial(_draw_curves, shown, about), len(shown), 0.5, 0.15))
    return as_markup(name, panels, short(printable(title), 2 * _LONGEST))


def _draw_curves(
    shown: Sequence[tuple[str, Curve, str]], about: tuple[str, float, Scale, float], axes: Axes
) -> None:
    title, unit, y, last = about
    lines = []
    for label, curve, colour in shown:
        lows, means, highs = (unit * np.array(of) for of in (curve.lows, curve.means, curve.highs))
        if max(curve.counts) > 1:
            axes.fill_between(curve.steps, lows, highs, color=colour, alpha=0.15, lw=0)
        spelled = short(printable(label), 2 * _LONGEST)
        lines += axes.plot(curve.steps, means, color=colour, label=spelled)
        hint(lines[-1], f"{label}: from {means[0]:.3g} to {means[-1]:.3g}")
    axes.set(xlim=(0, last), ylim=(unit * y.low, unit * y.high))
    axes.set(xlabel="update", ylabel="score, %" if unit == 100 else "loss")
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND_STEPS))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=ROUND_STEPS))
    add_legend(axes, lines, title, 1)


def draw_sweep(
    name: str,
    title: str,
    curves: tuple[Mapping[str, Any], Mapping[str, Any] | None],
    y: Scale,
    hints: Sequence[str],
) -> Markup:
    """Return the score over the values of a swept field, its plateau and its default.

    The curve is one of `robustness.curves` of `summary.json`; its twin is of other rows, if any.
    `y` is the axis of scores; hints are shown at each value.
    """
    curve, twin = curves

    def draw(axes: Axes) -> None:
        values = curve["values"]
        start = start_of_axis(values)
        places = [value if start is None else max(value, start) for value in values]
        if start is not None:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(places, [number(value) for value in values])
        if curve["plateau"] is not None:
            axes.axvspan(*(max(end, start or end) for end in curve["plateau"]), color=MARK, lw=0)
        default = curve["default_value"]
        if default is not None and values[0] <= default <= values[-1]:
            axes.axvline(default, color=ORANGE, linewidth=1, linestyle=":")
        for one, look in ((twin, "--"), (curve, "-o")):
            if one is not None:
                _draw_means(axes, places, one, look)
        for at, text, lost in zip(places, hints, curve["diverged"], strict=True):
            axes.plot([at], [y.low], "x" if lost else "", color=ORANGE, clip_on=False)
            hint(axes.axvline(at, linewidth=9, alpha=0.0), text)
        about, field = short(printable(title), 2 * _LONGEST), short(printable(curve["field"]), 40)
        axes.set(title=about, xlabel=field, ylabel="score, %", ylim=(y.low, y.high))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND_STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))

    return as_markup(name, [Panel(1.5, draw, 0, 0.6, 0.15)])


def _draw_means(axes: Axes, places: Sequence[float], curve: Mapping[str, Any], look: str) -> None:
    """Draw means with their intervals; values without a score are left out."""
    known = [n for n, mean in enumerate(curve["means"]) if mean is not None]
    means = [curve["means"][n] for n in known]
    axes.plot([places[n] for n in known], means, look, color=BLUE, markersize=3, linewidth=1.2)
    for n in known:
        ends = (curve["lows"][n], curve["highs"][n])
        if look != "--" and ends[0] is not None:
            axes.plot([places[n]] * 2, ends, color=BLUE, linewidth=1)
