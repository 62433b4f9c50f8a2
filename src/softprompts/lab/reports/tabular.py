"""Tables: CSV to compute with, LaTeX to print, and values as readers see them."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from softprompts.lab.analysis.comparisons import difference_range, ratio_range

_RISKY: Final = ("=", "+", "-", "@", "\t", "\r", "'")
_FORMATS: Final = {"count": (1, "{:,}"), "percent": (100, "{:.1f}"), "points": (100, "{:+.1f}")}
_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "−": "$-$",
    "±": r"$\pm$",
    "–": "--",
    "—": "---",
    "·": r"\textperiodcentered{}",
    "…": r"\dots{}",
    "×": r"$\times$",
}
_ACCENTS: Final = frozenset("\u0300\u0301\u0302\u0303\u0308\u030c\u0327")


@final
@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: what CSV calls it; unique in its table.
        kind: how its values are shown: `text`, `long` text, `count`, `number`, `percent`, `points`
            or `p`; of two values `score`, `range`, `difference` or `ratios`.
        parts: what CSV calls its two values, where it has two.
        is_shown: whether readers see it; CSV has every column.
    """

    key: str
    heading: str
    kind: str = "text"
    parts: tuple[str, ...] = ()
    is_shown: bool = True

    @property
    def look(self) -> str:
        """Its class on a page."""
        return self.kind if self.kind in ("text", "long") else ""

    def values(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return its value in a row, or its two: a pair there, or by the names of the parts."""
        if not self.parts:
            return (row.get(self.key),)
        return tuple(row.get(self.key, [row.get(part) for part in self.parts]) or (None, None))

    def is_in(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row has its value."""
        return self.values(row)[0] not in (None, "")


@final
@dataclass(frozen=True)
class Table:
    """Rows of values under columns.

    Attributes:
        rows: values by column key, among others; a missing value is `None`, two are a pair.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns that readers see; those without any value are left out."""
        return tuple(c for c in self.columns if c.is_shown and any(c.is_in(r) for r in self.rows))


def to_csv(table: Table) -> str:
    r"""Return a table as CSV, values in full.

    Text that a spreadsheet might run as a formula, and text that begins with an apostrophe, gets
    an apostrophe before it; numbers are never changed.

    Example:
        >>> to_csv(Table("t", "T", (Column("name", "name"),), ({"name": "=1+1"},)))
        "name\r\n'=1+1\r\n"
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    heads = [key for column in table.columns for key in column.parts or (column.key,)]
    writer.writerow(map(_plain, heads))
    for row in table.rows:
        values = [value for column in table.columns for value in column.values(row)]
        writer.writerow(map(_plain, values))
    return file.getvalue()


def to_latex(table: Table) -> str:
    """Return the columns that readers see as LaTeX; it needs the package booktabs."""
    columns, title = table.shown, " ".join(table.title.split())
    spec = "".join("l" if column.look else "r" for column in columns)
    lines = [
        f"% {title}",
        r"% needs \usepackage{booktabs,textcomp}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        " & ".join(_in_latex(column.heading) for column in columns) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [_in_latex(shown_value(column, row)) for column in columns]
        lines.append(" & ".join(f"{{}}{c}" if c[:1] in "[*" else c for c in cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def shown_value(column: Column, row: Mapping[str, Any]) -> str:
    """Return a value as readers see it."""
    if not column.is_in(row):
        return "–"
    values = column.values(row)
    if column.parts:
        return _pair(column.kind, *values)
    return str(values[0]) if column.look else spelled(column.kind, values[0])


def _pair(kind: str, first: float | None, second: float | None) -> str:
    if kind == "score":
        return f"{spelled('percent', first)} ± {spelled('percent', second)}"
    if kind == "range" or first is None or second is None:
        return f"{spelled('percent', first)} to {spelled('percent', second)}"
    return (difference_range if kind == "difference" else ratio_range)((first, second))


def spelled(kind: str, value: float | None) -> str:
    """Return a number as readers see it; see `Column.kind`."""
    if value is None:
        return "–"
    if kind == "p":
        return "1" if value >= 0.9995 else f"{value:.3g}"
    if kind in _FORMATS:
        factor, form = _FORMATS[kind]
        text = form.format(factor * value)
    else:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", "−")


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_RISKY) else value
    return "" if value is None else repr(value)


def _in_latex(text: str) -> str:
    """Return text that LaTeX shows as it is; letters that it may lack become their numbers."""
    return "".join(map(_letter, text))


def _letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if " " <= letter <= "~":
        return letter
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        return letter
    return " " if letter.isspace() else rf"\texttt{{U+{ord(letter):04X}}}"
