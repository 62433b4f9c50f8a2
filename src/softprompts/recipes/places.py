"""How errors name one variant at one point of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.problems import show


def place(variant: str, point: Mapping[str, Any]) -> str:
    """Return how to name one variant at one point: `plain, task.name 'fewglue/cb'`."""
    return ", ".join([variant, *(f"{field} {show(value)}" for field, value in point.items())])


def listed(places: Sequence[str]) -> str:
    """Return the first few of some places, in brackets, and how many more there are."""
    more = f"; and {len(places) - 3} more" if len(places) > 3 else ""
    return f"(variant {'; '.join(places[:3])}{more})"
