"""Small pictures as SVG: positions in percent, so that they fit any width, and no fixed colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from softprompts.lab.reports.curves_of_runs import Curve
from softprompts.lab.reports.markup import Html, joined, tag

ROW_HEIGHT = 30
_RADIUS = 3.5
_SHADES = 20
_CLOSE = 1.4  # percent of the width: dots nearer than this stand above each other


@final
@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: its left or lower end.
        high: its other end.
        is_logarithmic: whether equal ratios are equally long.
    """

    low: float
    high: float
    is_logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value stands, in percent; values beyond the ends stand at them."""
        low, high, at = (self._warped(one) for one in (self.low, self.high, value))
        if high <= low:
            return 50.0
        return 100 * min(1.0, max(0.0, (at - low) / (high - low)))

    def holds(self, value: float) -> bool:
        """Return whether a value is on the axis."""
        return self.low <= value <= self.high

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values along the axis.

        Args:
            most: how many at most.
        """
        if self.is_logarithmic:
            return self._log_ticks(most)
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        for exponent in range(math.floor(math.log10(span / most)), 99):
            for step in (1, 2, 5):
                size = step * 10.0**exponent
                first, last = math.ceil(self.low / size - 1e-9), math.floor(self.high / size + 1e-9)
                if last - first + 1 <= most:
                    return [number * size for number in range(first, last + 1)]
        return []

    def _log_ticks(self, most: int) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1, 2, 5), (1,)):
            found = [step * 10.0**exponent for exponent in range(low, high + 1) for step in steps]
            inside = [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]
            if len(inside) <= most:
                return inside
        return inside[:: math.ceil(len(inside) / most)]

    def _warped(self, value: float) -> float:
        return math.log(max(value, 1e-300)) if self.is_logarithmic else value


def scale_around(values: Iterable[float], share: float = 0.04) -> Scale:
    """Return an axis that holds all values with a margin.

    Args:
        values: the values; without any, the axis goes from 0 to 1.
        share: the margin on each side, as a share of their span.
    """
    held = [value for value in values if math.isfinite(value)]
    low, high = (min(held), max(held)) if held else (0.0, 1.0)
    margin = share * (high - low) or max(0.01, abs(high) * 0.05)
    return Scale(low - margin, high + margin)


def svg(label: str, *parts: Html | None, height: int = ROW_HEIGHT) -> Html:
    """Return a picture as wide as its place.

    Args:
        label: what it says, for those who do not see it.
        parts: its elements.
        height: its height in pixels.
    """
    return tag("svg", tag("title", label), *parts, role="img", width="100%", height=height)


def rule(x: float, class_: str, height: int = ROW_HEIGHT, title: str = "") -> Html:
    """Return a line from top to bottom.

    Args:
        x: where, in percent.
        class_: its look.
        height: its height in pixels.
        title: what is shown above it.
    """
    return _line(x, x, 0, height, class_, title)


def bar(scale: Scale, ends: Sequence[float], class_: str, title: str = "") -> Html:
    """Return a line along the middle of a row, with an arrow head where it leaves the axis.

    Args:
        scale: the axis.
        ends: the values that it goes from and to.
        class_: its look.
        title: what is shown above it.
    """
    low, high = (scale.place(end) for end in ends)
    said = title + beyond(scale, ends)
    line = _line(low, high, ROW_HEIGHT // 2, ROW_HEIGHT // 2, class_, said)
    heads = [
        (low, ends[0] < scale.low, "M0 0l8-5v10z"),
        (high, ends[1] > scale.high, "M0 0l-8-5v10z"),
    ]
    return joined([line, *(_head(x, shape, said) for x, is_cut, shape in heads if is_cut)])


def beyond(scale: Scale, ends: Sequence[float]) -> str:
    """Return words on an interval that is drawn only in part, to end a sentence; else "".

    Args:
        scale: the axis.
        ends: where the interval begins and ends.
    """
    return "" if scale.low <= ends[0] and ends[1] <= scale.high else ", beyond the axis"


def _head(x: float, shape: str, title: str) -> Html:
    """Return an arrow head with its tip at a place in percent."""
    drawn = tag("path", tag("title", title), d=shape)
    return tag("svg", drawn, x=f"{x:.2f}%", y=ROW_HEIGHT // 2, width=1, height=1, class_="beyond")


def mark(x: float, class_: str, title: str = "") -> Html:
    """Return a tall mark at one value of a row.

    Args:
        x: where, in percent.
        class_: its look.
        title: what is shown above it.
    """
    return _line(x, x, 5, ROW_HEIGHT - 5, class_, title)


def dots(places: Sequence[float], titles: Sequence[str]) -> list[Html]:
    """Return a dot per value; dots that would hide each other stand above each other.

    Args:
        places: where, in percent.
        titles: what is shown above each.
    """
    heights: dict[int, float] = {}
    taken: list[tuple[float, float]] = []
    for number in sorted(range(len(places)), key=lambda one: places[one]):
        near = {y for x, y in taken if abs(x - places[number]) < _CLOSE}
        free = [y for y in (0.0, -6.0, 6.0, -3.0, 3.0, -9.0, 9.0) if y not in near]
        heights[number] = free[0] if free else 0.0
        taken.append((places[number], heights[number]))
    return [
        tag(
            "circle",
            tag("title", title),
            cx=f"{x:.2f}%",
            cy=f"{ROW_HEIGHT / 2 + heights[number]:g}",
            r=_RADIUS,
            class_="dot",
        )
        for number, (x, title) in enumerate(zip(places, titles, strict=True))
    ]


def axis(scale: Scale, texts: Sequence[tuple[float, str]]) -> Html:
    """Return the axis under or above rows; readers without sight are told its values elsewhere.

    Args:
        scale: the axis.
        texts: values and what stands at them.
    """
    labels = []
    for value, text in texts:
        x = scale.place(value)
        anchor = "start" if x < 4 else "end" if x > 96 else "middle"
        labels.append(tag("text", text, x=f"{x:.2f}%", y="12", text_anchor=anchor, class_="tick"))
    return tag("svg", *labels, width="100%", height=16, aria_hidden="true")


def plot(
    label: str,
    curves: Sequence[tuple[Curve, str]],
    x: Scale,
    y: Scale,
    over: Sequence[Html] = (),
) -> Html:
    """Return curves with their bands, without axes; the picture fills its place.

    Args:
        label: what it says, for those who do not see it.
        curves: each with its look; the band is drawn where several seeds make it.
        x: the axis of updates.
        y: the axis of values.
        over: what is drawn above them.
    """
    parts = grid_lines(y)
    for curve, class_ in curves:
        lows = _places(curve.steps, curve.lows, x, y)
        highs = _places(curve.steps, curve.highs, x, y)
        if max(curve.counts) > 1:
            outline = " ".join([*highs, *reversed(lows)])
            parts.append(tag("polygon", points=outline, class_=f"band {class_}"))
        means = " ".join(_places(curve.steps, curve.means, x, y))
        parts.append(tag("polyline", points=means, class_=f"curve {class_}"))
    return stretched(label, [*parts, *over])


def columns(
    label: str,
    heights: Sequence[float],
    titles: Sequence[str],
    top: float,
    over: Sequence[Html] = (),
) -> Html:
    """Return a histogram that fills its place.

    Args:
        label: what it says, for those who do not see it.
        heights: shares of the whole.
        titles: what is shown above each column.
        top: the share at the upper edge, above 0.
        over: what is drawn above them.
    """
    wide = 100 / max(1, len(heights))
    parts = [
        tag(
            "rect",
            tag("title", title),
            x=f"{number * wide + 0.08 * wide:.2f}",
            width=f"{0.84 * wide:.2f}",
            y=f"{100 - 100 * height / top:.2f}",
            height=f"{100 * height / top:.2f}",
            class_="column",
        )
        for number, (height, title) in enumerate(zip(heights, titles, strict=True))
    ]
    return stretched(label, [*parts, *over])


def cells(label: str, values: Sequence[Sequence[float | None]], titles: Sequence[str]) -> Html:
    """Return a map of shares that fills its place: the more, the fuller its colour.

    Args:
        label: what it says, for those who do not see it.
        values: a row per place from left to right, in it a number per place from bottom to top;
            where there is none, nothing is drawn.
        titles: what is shown above each place from left to right.
    """
    most = max([one for line in values for one in line if one is not None], default=0.0)
    tall = max(map(len, values), default=1)
    shades: dict[int, list[str]] = {}
    for x, line in enumerate(values):
        for y, one in enumerate(line, start=1):
            shade = round(_SHADES * one / most) if one and most > 0 else 0
            if shade > 0:
                shades.setdefault(shade, []).append(f"M{x} {tall - y}h1v1h-1z")
    parts = [
        tag("path", d="".join(paths), fill_opacity=shade / _SHADES, class_="cell")
        for shade, paths in sorted(shades.items())
    ]
    parts += [
        tag("rect", tag("title", title), x=x, y="0", width="1", height=tall, class_="area")
        for x, title in enumerate(titles)
    ]
    return stretched(label, parts, (len(values), tall))


def stretched(label: str, parts: Sequence[Html], size: tuple[int, int] = (100, 100)) -> Html:
    """Return a picture that fills its place.

    Args:
        label: what it says, for those who do not see it.
        parts: its elements.
        size: width and height that their places are counted in.
    """
    return tag(
        "svg",
        tag("title", label),
        *parts,
        role="img",
        viewBox=f"0 0 {size[0]} {size[1]}",
        preserveAspectRatio="none",
        class_="plot",
    )


def upright(x: float, ends: Sequence[float], class_: str) -> Html:
    """Return an upright line in a picture that fills its place.

    Args:
        x: where, in percent.
        ends: where it begins and ends, in percent from the top.
        class_: its look.
    """
    low, high = (f"{end:.2f}" for end in ends)
    return tag("line", x1=f"{x:.2f}", x2=f"{x:.2f}", y1=low, y2=high, class_=class_)


def point(x: float, y: float, class_: str, title: str = "") -> Html:
    """Return a round point in a picture that fills its place: a line of no length, round ends.

    Args:
        x: where, in percent.
        y: where, in percent from the top.
        class_: its look.
        title: what is shown above it.
    """
    said = tag("title", title) if title else None
    return tag("path", said, d=f"M{x:.2f} {y:.2f}h0", class_=class_)


def grid_lines(y: Scale) -> list[Html]:
    """Return lines at round values, for a picture that fills its place.

    Args:
        y: the axis of values.
    """
    heights = [f"{100 - y.place(tick):.2f}" for tick in y.ticks(4)]
    return [tag("line", x1="0", x2="100", y1=one, y2=one, class_="grid") for one in heights]


def _places(steps: Sequence[float], values: Sequence[float], x: Scale, y: Scale) -> list[str]:
    return [
        f"{x.place(step):.1f},{100 - y.place(value):.1f}"
        for step, value in zip(steps, values, strict=True)
    ]


def _line(x1: float, x2: float, y1: float, y2: float, class_: str, title: str) -> Html:
    said = tag("title", title) if title else None
    return tag(
        "line",
        said,
        x1=f"{x1:.2f}%",
        x2=f"{x2:.2f}%",
        y1=f"{y1:g}",
        y2=f"{y2:g}",
        class_=class_,
    )
