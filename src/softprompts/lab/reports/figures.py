"""Figures as stacks of panels; matplotlib without its global state.

A figure is one column, so that it can be read at 400 pixels and on paper. Sizes are in inches.
The same figure is a file, as SVG or PNG, or stands in a page, where it follows light and dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final
from xml.etree import ElementTree

import matplotlib.style
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from softprompts.lab.reports.pages import MAKER, number_of, printable

INK, SOFT, LINE, MARK = "#1c1d20", "#bcd3ec", "#dededa", "#ffe8a3"
BLUE, GREEN, ORANGE, GREY = "#0072b2", "#009e73", "#d55e00", "#666666"
"""Colours that differ for every kind of sight; lines differ in style too."""

STYLE: Final[Mapping[str, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
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
_VARIABLES: Final = {
    INK: "ink", SOFT: "soft", LINE: "line", MARK: "mark", BLUE: "accent", GREEN: "second",
    ORANGE: "other", GREY: "faint",
}  # fmt: skip
_COLOUR: Final = re.compile("|".join(_VARIABLES))
_HINT: Final = "hint: "

WIDTH, RIGHT, BELOW, HEADING_LINE, LEGEND_LINE = 5.0, 0.8, 0.5, 0.19, 0.18

ROUND_STEPS = (1, 2, 5, 10)
"""Steps between ticks."""

Spelling = Callable[[str], str]
"""Turns text from data into text that a format can show."""


@final
@dataclass(frozen=True)
class Panel:
    """One panel of a figure: the height of its axes, what draws into them, and room around them.

    Attributes:
        num_above: lines of text between title and axes.
    """

    height: float
    draw: Callable[[Axes], None]
    num_above: int = 0
    left: float = 0.6
    right: float = RIGHT
    below: float = BELOW

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


def stack(panels: Sequence[Panel], title: str = "", notes: Sequence[str] = ()) -> Figure:
    """Return a figure of panels, one under the other."""
    heading = (title, *notes) if title else ()
    head = 0.1 * bool(title) + HEADING_LINE * len(heading)
    tall = head + sum(panel.above + panel.height + panel.below for panel in panels)
    figure = Figure(figsize=(WIDTH, tall))
    for place, text in enumerate(heading):
        weight = "normal" if place else "bold"
        height = 1 - (0.08 + HEADING_LINE * place) / tall
        figure.text(0.08 / WIDTH, height, text, va="top", fontsize=9, fontweight=weight, zorder=-1)
    top = tall - head
    for panel in panels:
        bottom = top - panel.above - panel.height
        wide = WIDTH - panel.left - panel.right
        box = (panel.left / WIDTH, bottom / tall, wide / WIDTH, panel.height / tall)
        panel.draw(figure.add_axes(box))
        top = bottom - panel.below
    return figure


def save(figure: Figure, format: str) -> bytes:
    """Return a figure as `svg` or `png`; the same figure gives the same bytes on every day."""
    about = {"Software": MAKER} if format == "png" else {"Creator": MAKER, "Date": None}
    file = io.BytesIO()
    figure.savefig(file, format=format, metadata=about)
    return file.getvalue()


def as_file(build: Callable[[Spelling], Figure], format: str) -> bytes:
    """Return a figure as `svg` or `png`; it is built with what spells texts for that format."""
    with style():
        return save(build(drawable if format == "png" else printable), format)


def as_markup(name: str, panels: Sequence[Panel], title: str = "") -> Markup:
    """Return panels as markup of a page, in the colours of the page's style.

    Each figure of a page has a `name` of its own, with which the names within it begin.
    """
    file = io.BytesIO()
    with style():
        figure = stack(panels, title)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in [one for one in parent if one.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for one in list(root.iter()):
        one.tag = one.tag.partition("}")[2]
        looks = one.attrib.pop("style", "").split(";")  # which the policy of a page forbids
        pairs = [look.split(":", 1) for look in looks if look.strip()]
        own = {**one.attrib, **{key.strip(): value.strip() for key, value in pairs}}
        one.attrib = {k.rpartition("}")[2]: _attribute(k, v, name) for k, v in own.items()}
        if one.get("id", "").startswith(_HINT):
            ElementTree.SubElement(one, "title").text = one.attrib.pop("id")[len(_HINT) :]
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _attribute(key: str, value: str, name: str) -> str:
    """Return an attribute with the figure's name in front of its names, in the page's colours."""
    if key == "id":
        return value if value.startswith(_HINT) else f"{name}-{value}"
    if key.endswith("href") and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if key in ("fill", "stroke"):
        return _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", value)
    return value


def hint(artist: Artist, text: str) -> None:
    """Say what a page shows where a reader points at something."""
    artist.set_gid(f"{_HINT}{printable(text)}")


def add_colour_bar(image: AxesImage, unit: str) -> None:
    """Explain the colours of an image beside it."""
    bar = image.axes.inset_axes((1.02, 0, 0.03, 1))
    colours = image.axes.figure.colorbar(image, cax=bar)
    colours.outline.set_visible(False)
    colours.locator = MaxNLocator(3)
    colours.update_ticks()
    colours.set_label(unit)


def add_legend(axes: Axes, lines: Sequence[Any], title: str, num_columns: int) -> None:
    """Write a legend above the axes, and a title above the legend."""
    rows = -(-len(lines) // num_columns)
    axes.legend(handles=list(lines), loc="lower left", bbox_to_anchor=(0, 1), ncols=num_columns)
    axes.set_title(title, pad=6 + 72 * LEGEND_LINE * rows)


def drawable(text: str) -> str:
    """Return a text with the numbers of letters that the font cannot draw."""
    known = get_font(findfont(FontProperties())).get_charmap()
    spelled = printable(text)
    return "".join(one if ord(one) in known else number_of(one) for one in spelled)
