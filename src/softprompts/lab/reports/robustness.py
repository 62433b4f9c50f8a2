"""The curves of a study's swept fields, as rows of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from softprompts.lab.analysis.robustness import is_logarithmic
from softprompts.lab.analysis.study_statistics import variant_words

HEADINGS = ("task", "field", "variant", "rows", "best", "within a point", "width", "default")


def robustness_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return one row per curve and set of levels of a study.

    Returns:
        Rows in the order of `HEADINGS`: the best value with its score in percent; the plateau, or
        the names of about the same score; its width; the default and its score, with a `*` where
        it lies off the plateau. Empty where the study sweeps nothing.
    """
    found = summary.get("robustness", {"curves": [], "levels": []})
    rows: list[tuple[str, ...]] = []
    for one in (*found["curves"], *found["levels"]):
        own = plateau_of(one, number)
        best = _scored(own["best"] or "–", own["best_score"])
        default = _scored(own["default"] or "–", own["default_score"])
        off = "*" * (own["is_default_near"] == "no")
        about = (one["task"], one["field"], variant_words(one), one["rows"])
        rows.append((*about, best, own["plateau"] or "–", width(one), f"{default}{off}"))
    return rows


def plateau_of(one: Mapping[str, Any], spell: Callable[[float], str]) -> dict[str, Any]:
    """Return best value, plateau and default of a curve or of levels; `None` for what is not there.

    The curve or levels are as `robustness` of `summary.json` has them; `spell` writes a number.
    """
    score = one["score_at_default"]
    if "names" in one:
        best, default, near = one["best_name"], one["default_name"], one["near_best"]
        places, plateau, unit = one["names"], ", ".join(near) or None, None
        is_near = None if score is None else default in near
    else:
        best, default = one["best_value"], one["default_value"]
        is_near = one["is_default_on_plateau"]
        places, unit = one["values"], "decades" if one["is_logarithmic"] else None
        plateau = one["plateau"] and " to ".join(map(spell, one["plateau"]))
    at_best = None if best is None else one["means"][list(places).index(best)]
    best, default = (spell(end) if isinstance(end, int | float) else end for end in (best, default))
    return {
        "best": best,
        "best_score": at_best,
        "plateau": plateau,
        "plateau_width": one.get("plateau_width"),
        "width_unit": unit,
        "default": default,
        "default_score": score,
        "is_default_near": None if is_near is None else ("yes" if is_near else "no"),
    }


def start_of_axis(values: Sequence[float]) -> float | None:
    """Return where a logarithmic axis of swept values begins; `None` where it is linear.

    A 0 before values that would have a logarithmic axis stands one step below the least of them.
    Values rise, and are two or more.
    """
    if is_logarithmic(values):
        return values[0]
    if values[0] == 0 and len(values) > 2 and is_logarithmic(values[1:]):
        return values[1] ** 2 / values[2]
    return None


def number(value: float | None) -> str:
    """Return a swept number as text: at most four digits, `–` for none."""
    return "–" if value is None else f"{value:.4g}"


def width(one: Mapping[str, Any]) -> str:
    """Return how wide a curve's plateau is, or how many levels are near the best, in words."""
    if "names" in one:
        return f"{len(one['near_best'])} of {len(one['names'])}"
    if one["is_logarithmic"] and one["plateau_width"] is not None:
        return f"{one['plateau_width']:.1f} decades"
    return number(one["plateau_width"])


def _scored(name: str, mean: float | None) -> str:
    return name if mean is None else f"{name} ({100 * mean:.1f})"
