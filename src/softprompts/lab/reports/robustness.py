"""The curves of a study's swept fields, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.lab.analysis.robustness import is_logarithmic

HEADINGS = ("task", "field", "variant", "rows", "best", "within a point", "width", "default")


def robustness_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return one row per curve and set of levels of a study.

    Args:
        summary: content of `summary.json`.

    Returns:
        Rows in the order of `HEADINGS`: the best value with its score in percent; the plateau, or
        the names of about the same score; its width; the default and its score, with a `*` where
        it lies off the plateau. Empty where the study sweeps nothing.
    """
    found = summary.get("robustness", {"curves": [], "levels": []})
    rows = [(*_about(curve), *_curve(curve)) for curve in found["curves"]]
    return rows + [(*_about(one), *_levels(one)) for one in found["levels"]]


def start_of_axis(values: Sequence[float]) -> float | None:
    """Return where a logarithmic axis of swept values begins; `None` where it is linear.

    A 0 before values that would have a logarithmic axis stands one step below the least of them.

    Args:
        values: rising numbers, two or more.
    """
    if is_logarithmic(values):
        return values[0]
    if values[0] == 0 and len(values) > 2 and is_logarithmic(values[1:]):
        return values[1] ** 2 / values[2]
    return None


def number(value: float | None) -> str:
    """Return a swept number as text: at most four digits, `–` for none."""
    return "–" if value is None else f"{value:.4g}"


def width(curve: Mapping[str, Any]) -> str:
    """Return how wide a curve's plateau is, in words."""
    if curve["plateau_width"] is None:
        return "–"
    if curve["is_logarithmic"]:
        return f"{curve['plateau_width']:.1f} decades"
    return number(curve["plateau_width"])


def _about(found: Mapping[str, Any]) -> tuple[str, ...]:
    point = " ".join(f"{field}={value}" for field, value in found["point"].items())
    return found["task"], found["field"], f"{found['variant']} {point}".strip(), found["rows"]


def _curve(curve: Mapping[str, Any]) -> tuple[str, ...]:
    ends = curve["plateau"]
    mark = "*" if curve["is_default_on_plateau"] is False else ""
    return (
        _scored(number(curve["best_value"]), _at(curve, "values", curve["best_value"])),
        "–" if ends is None else f"{number(ends[0])} to {number(ends[1])}",
        width(curve),
        _scored(number(curve["default_value"]), curve["score_at_default"]) + mark,
    )


def _levels(found: Mapping[str, Any]) -> tuple[str, ...]:
    near, default = found["near_best"], found["default_name"]
    is_off = found["score_at_default"] is not None and default not in near
    return (
        _scored(found["best_name"] or "–", _at(found, "names", found["best_name"])),
        ", ".join(near) or "–",
        f"{len(near)} of {len(found['names'])}",
        _scored(default, found["score_at_default"]) + ("*" if is_off else ""),
    )


def _at(found: Mapping[str, Any], key: str, value: Any) -> float | None:
    values: Sequence[Any] = found[key]
    mean: float | None = found["means"][values.index(value)] if value in values else None
    return mean


def _scored(name: str, mean: float | None) -> str:
    return name if mean is None else f"{name} ({100 * mean:.1f})"
