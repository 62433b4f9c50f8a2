"""Parts that the sections of a report are put together from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from softprompts.lab.reports.markup import Child, Html, block, data_link, joined, tag
from softprompts.lab.reports.tabular import Table, to_csv, to_html, to_latex

MOST_OPEN = 8
"""Most groups of pictures that stand open; more are folded."""

MOST_PANELS = 60
"""Most charts of a section that stand open; more are folded."""

MOST_ROWS = 24
"""Most rows of a table that stand open; longer tables are folded."""


@final
@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        name: its anchor.
        title: its heading.
        body: what stands in it.
        tables: its tables, each of which is also a file.
    """

    name: str
    title: str
    body: Html
    tables: tuple[Table, ...] = ()

    def as_html(self) -> Html:
        """Return it under its heading."""
        return tag("section", tag("h2", self.title), self.body, id=self.name)


def note(text: str) -> Html:
    """Return what a reader must know, less loudly.

    Args:
        text: what it says.
    """
    return tag("p", text, class_="note")


def with_sources(table: Table, *, is_folded: bool = False) -> Html:
    """Return a table with its note, and itself as CSV and LaTeX to save or to copy.

    Args:
        table: the table.
        is_folded: whether it is shown only when asked for, however short it is.
    """
    if not table.rows:
        return Html("")
    csv, latex = to_csv(table), to_latex(table)
    links = tag(
        "div",
        data_link("CSV", f"{table.name}.csv", csv.encode(), "text/csv"),
        data_link("LaTeX", f"{table.name}.tex", latex.encode(), "application/x-tex"),
        tag("details", tag("summary", "Copy as LaTeX"), block(latex, f"{table.title} as LaTeX")),
        class_="get sources",
    )
    said = note(table.note) if table.note else None
    body = tag("div", to_html(table), said, links)
    if not is_folded and len(table.rows) <= MOST_ROWS:
        return body
    return folded(f"{table.title}: table of {len(table.rows)} rows", body)


def folded(title: str, *children: Child, is_open: bool = False) -> Html:
    """Return what is shown only when asked for.

    Args:
        title: what is asked for.
        children: what is shown.
        is_open: whether it is shown from the beginning.
    """
    return tag("details", tag("summary", title), *children, open=is_open)


def chart(title: str, picture: Html, ys: Sequence[str], xs: Sequence[str], look: str = "") -> Html:
    """Return a picture with its title and the ends of its axes.

    Args:
        title: its title.
        picture: the picture.
        ys: what stands beside it, from top to bottom.
        xs: what stands below it, from left to right.
        look: its class, besides that of every chart.
    """
    return tag(
        "div",
        tag("h4", title),
        tag("div", (tag("span", text) for text in ys), class_="ys"),
        tag("div", picture, class_="frame"),
        tag("div", (tag("span", text) for text in xs), class_="xs"),
        class_=f"chart {look}".strip(),
    )


def panels(charts: Sequence[Html], before: int) -> Html:
    """Return charts side by side; those beyond the first few of a section are folded.

    Args:
        charts: the charts.
        before: how many the section has already.
    """
    room = max(0, MOST_PANELS - before)
    rest = charts[room:]
    more = folded(f"{len(rest)} more", tag("div", *rest, class_="small")) if rest else None
    return joined([tag("div", *charts[:room], class_="small") if room else None, more])


def swatches(*pairs: tuple[Html, str]) -> Html:
    """Return what the marks of a picture mean.

    Args:
        pairs: each mark, 26 by 14 pixels, and its meaning.
    """
    return tag(
        "div",
        (
            tag(
                "span",
                tag("svg", mark, width="26", height="14", viewBox="0 0 26 14", aria_hidden="true"),
                text,
            )
            for mark, text in pairs
        ),
        class_="swatches",
    )


def swatch(shape: str, look: str) -> Html:
    """Return a mark for `swatches`.

    Args:
        shape: `dot`, `bar` (along) or `rule` (up and down).
        look: its class.
    """
    if shape == "dot":
        return tag("circle", cx="13", cy="7", r="3.5", class_=look)
    if shape == "bar":
        return tag("line", x1="1", x2="25", y1="7", y2="7", class_=look)
    if shape == "box":
        return tag("rect", x="1", width="24", y="1", height="12", class_=look)
    return tag("line", x1="13", x2="13", y1="0", y2="14", class_=look)
