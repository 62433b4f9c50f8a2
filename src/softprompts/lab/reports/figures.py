"""Figures as stacks of panels; matplotlib without its global state.

A figure is one column, so that it can be read at 400 pixels and on paper. Sizes are in inches.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from softprompts.lab.reports.page import MAKER

STYLE: Final[Mapping[str, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.borderaxespad": 0.3,
    "legend.borderpad": 0,
    "image.cmap": "cividis",
    "image.interpolation": "none",
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "softprompts",
    "savefig.dpi": 160,
}

BLUE, GREEN, ORANGE, GREY = "#0072B2", "#009E73", "#D55E00", "#666666"
"""Colours that differ for every kind of sight; lines differ in style too."""

WIDTH, RIGHT, BELOW, HEADING_LINE, LEGEND_LINE = 5.0, 0.8, 0.5, 0.19, 0.18

ROUND_STEPS = (1, 2, 5, 10)
"""Steps between ticks."""

Spelling = Callable[[str], str]
"""Turns text from data into text that a format can show."""


@final
@dataclass(frozen=True)
class Panel:
    """One panel of a figure.

    Attributes:
        height: height of its axes.
        draw: draws into the panel's axes; the second axes are narrow, stand beside them and are
            hidden unless `add_colour_bar` uses them.
        num_above: lines of text between title and axes.
        left: room for labels on the left.
    """

    height: float
    draw: Callable[[Axes, Axes], None]
    num_above: int = 0
    left: float = 0.6

    @property
    def above(self) -> float:
        """Height of its title and of the lines under it."""
        return 0.3 + LEGEND_LINE * self.num_above


@contextmanager
def style() -> Iterator[None]:
    """Use `STYLE` and no setting of the user, for as long as the context lasts.

    Letters that the font lacks stay text in an SVG, so what is said of them is silenced; for other
    formats spell texts with `drawable`.
    """
    with matplotlib.style.context(dict(STYLE), after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def stack(panels: Sequence[Panel], title: str, notes: Sequence[str]) -> Figure:
    """Return a figure of panels, one under the other.

    Args:
        panels: the panels, the first on top.
        title: the figure's title.
        notes: lines under it.
    """
    head = 0.1 + HEADING_LINE * (1 + len(notes))
    tall = head + sum(panel.above + panel.height + BELOW for panel in panels)
    figure = Figure(figsize=(WIDTH, tall))
    for place, text in enumerate((title, *notes)):
        weight = "normal" if place else "bold"
        height = 1 - (0.08 + HEADING_LINE * place) / tall
        figure.text(0.08 / WIDTH, height, text, va="top", fontsize=9, fontweight=weight, zorder=-1)
    top = tall - head
    for panel in panels:
        bottom = top - panel.above - panel.height
        share = (bottom / tall, panel.height / tall)
        wide = WIDTH - panel.left - RIGHT
        axes = figure.add_axes((panel.left / WIDTH, share[0], wide / WIDTH, share[1]))
        bar = figure.add_axes(((WIDTH - RIGHT + 0.08) / WIDTH, share[0], 0.1 / WIDTH, share[1]))
        bar.set_axis_off()
        panel.draw(axes, bar)
        top = bottom - BELOW
    return figure


def save(figure: Figure, format: str) -> bytes:
    """Return a figure as `svg` or `png`; the same figure gives the same bytes on every day.

    Args:
        figure: the figure.
        format: `svg` or `png`.
    """
    dates: dict[str, Any] = {"Creator": MAKER, "Date": None}
    file = io.BytesIO()
    figure.savefig(file, format=format, metadata={"Software": MAKER} if format == "png" else dates)
    return file.getvalue()


def add_colour_bar(image: AxesImage, bar: Axes, unit: str) -> None:
    """Explain the colours of an image beside it.

    Args:
        image: the image.
        bar: the narrow axes of its panel.
        unit: what the colours count.
    """
    bar.set_axis_on()
    colours = image.axes.figure.colorbar(image, cax=bar)
    colours.outline.set_visible(False)
    colours.locator = MaxNLocator(3)
    colours.update_ticks()
    colours.set_label(unit)


def add_legend(axes: Axes, lines: Sequence[Any], title: str, num_columns: int) -> None:
    """Write a legend above the axes, and a title above the legend.

    Args:
        axes: the axes.
        lines: what the legend names.
        title: the panel's title.
        num_columns: columns of the legend.
    """
    rows = -(-len(lines) // num_columns)
    axes.legend(handles=list(lines), loc="lower left", bbox_to_anchor=(0, 1), ncols=num_columns)
    axes.set_title(title, pad=6 + 72 * LEGEND_LINE * rows)


def short(text: str, longest: int) -> str:
    """Return a text without its middle where it is too long.

    Args:
        text: the text.
        longest: most letters to return.

    Example:
        >>> short("contradiction", 8)
        'cont…ion'
    """
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[: longest - 1 - half]}…{text[-half:]}"


def printable(text: str) -> str:
    r"""Return a text with the numbers of letters that cannot be printed.

    Args:
        text: the text.

    Example:
        >>> print(printable("one\ntwo"))
        one\ntwo
    """
    return "".join(letter if letter.isprintable() else _number(letter) for letter in text)


def drawable(text: str) -> str:
    """Return a text with the numbers of letters that the font cannot draw.

    Args:
        text: the text.
    """
    known = get_font(findfont(FontProperties())).get_charmap()
    spelled = printable(text)
    return "".join(letter if ord(letter) in known else _number(letter) for letter in spelled)


def _number(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
