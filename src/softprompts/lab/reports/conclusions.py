"""What a study allows to conclude, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def conclusions(summary: Mapping[str, Any]) -> list[str]:
    """Return what may be concluded of each variant against the baseline.

    Of several tasks only their mean is spoken of; the single tasks are in `summary.json`.

    Args:
        summary: content of `summary.json`.

    Returns:
        Two texts per variant and grid point: on means, and on spread over seeds. None comes twice.
    """
    found = summary["comparisons"]
    joint = {(repr(c["point"]), c["variant"]) for c in found if len(_tasks(c)) > 1}
    texts = []
    for comparison in found:
        is_joint = (repr(comparison["point"]), comparison["variant"]) in joint
        if is_joint and len(_tasks(comparison)) == 1:
            continue
        point = " ".join(f"{field}={value}" for field, value in comparison["point"].items())
        place = f"{point}, " if point else ""
        texts += [f"{place}{comparison[key]}" for key in ("conclusion", "conclusion_on_spread")]
    return list(dict.fromkeys(texts))  # a mean over tasks may so far be that of one


def _tasks(comparison: Mapping[str, Any]) -> list[str]:
    tasks: list[str] = comparison["tasks"]
    return tasks
