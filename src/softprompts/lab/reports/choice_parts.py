"""Pictures of choices that pages of one run and reports of studies share."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from softprompts.lab.reports.chosen import Weights
from softprompts.lab.reports.markup import Html, tag
from softprompts.lab.reports.sections import chart
from softprompts.lab.reports.svg import columns, point, upright

UNITS = {"position": "rows in front", "length": "active rows"}
"""What the values of each selector count."""

_MOST_SAID = 20


def histogram(
    title: str,
    seeds: Sequence[Sequence[float]],
    first: int,
    stds: Sequence[float] = (),
    outline: Sequence[float] = (),
) -> Html:
    """Return shares as columns: their mean over seeds, and a point for each of several seeds.

    Args:
        title: what they are shares of.
        seeds: the shares of each seed.
        first: the number of the first column.
        stds: standard deviation over inputs of each column, where known.
        outline: other shares, drawn as an outline.
    """
    columns_of = list(zip(*seeds, strict=True))
    means = [fmean(values) for values in columns_of]
    spread = [mean + std for mean, std in zip(means, stds, strict=True)] if stds else []
    most = max([*spread, *(one for values in seeds for one in values), *outline, 1e-9])
    top, wide = 1.05 * most, 100 / len(means)
    over: list[Html] = []
    for number, (mean, values) in enumerate(zip(means, columns_of, strict=True)):
        middle = (number + 0.5) * wide
        if stds:
            ends = (mean - stds[number], mean + stds[number])
            heights = [100 - 100 * max(0.0, end) / top for end in ends]
            over.append(upright(middle, heights, "spread"))
        if len(seeds) > 1:
            heights = [100 - 100 * one / top for one in values]
            over += [point(middle, y, look) for look in ("halo", "seed") for y in heights]
    if outline:
        over.append(_outline([100 - 100 * share / top for share in outline], wide))
    titles = [_said(first + n, values, stds[n : n + 1]) for n, values in enumerate(columns_of)]
    picture = columns(f"{title}: {'; '.join(titles[:_MOST_SAID])}", means, titles, top, over)
    ends_of_x = [str(first), str(first + len(means) - 1)][: len(means)]
    return chart(title, picture, (f"{100 * most:.0f} %", "0"), ends_of_x)


def weight_table(
    title: str,
    heads: Sequence[str],
    rows: Sequence[tuple[Sequence[str], Weights, Weights]],
) -> Html:
    """Return mean weights of sets in percent, with their spread over inputs; colours say it too.

    Args:
        title: what it is of.
        heads: headings of the columns before those of the sets.
        rows: what stands in those columns; weights; standard deviations, where known.
    """
    known = [weight for _, weights, _ in rows for weight in weights if weight is not None]
    most = max(known, default=0.0) or 1.0
    numbers = range(1, 1 + max(len(weights) for _, weights, _ in rows))
    head = tag(
        "tr",
        (tag("th", text, class_="text", scope="col") for text in heads),
        (tag("th", f"set {number}", scope="col") for number in numbers),
    )
    body = (
        tag(
            "tr",
            (tag("td", name, class_="text") for name in names),
            (
                _cell(weight, stds[number] if stds else None, most)
                for number, weight in enumerate(weights)
            ),
        )
        for names, weights, stds in rows
    )
    drawn = tag("table", tag("thead", head), tag("tbody", body), aria_label=title)
    return tag("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=title)


def _cell(weight: float | None, std: float | None, most: float) -> Html:
    if weight is None:
        return tag("td", "–")
    spread = None if std is None else tag("small", f" ± {100 * std:.0f}")
    style = f"--share: {100 * weight / most:.0f}%"
    return tag("td", f"{100 * weight:.0f}", spread, class_="share", style=style)


def _said(number: int, values: Sequence[float], std: Sequence[float]) -> str:
    """Return what is shown above a column: its mean, single seeds, and the spread over inputs."""
    parts = [f"{number}: {100 * fmean(values):.0f} %"]
    parts += [f"± {100 * one:.0f} over inputs" for one in std]
    if len(values) > 1:
        parts.append(f"({', '.join(f'{100 * one:.0f}' for one in values)})")
    return " ".join(parts)


def _outline(heights: Sequence[float], wide: float) -> Html:
    """Return steps along the tops of columns."""
    places = ["0,100"]
    for number, height in enumerate(heights):
        places += [f"{number * wide:.2f},{height:.2f}", f"{(number + 1) * wide:.2f},{height:.2f}"]
    return tag("polyline", points=" ".join([*places, "100,100"]), class_="outline")
