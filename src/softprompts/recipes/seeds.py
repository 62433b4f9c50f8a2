"""Seeds as a recipe says them: a list, or how many."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError

MOST_SEEDS = 10000


def read_seeds(value: Any, first: int = 0) -> tuple[int, ...]:
    """Return the seeds that a recipe means.

    Args:
        value: a list of seeds, or how many.
        first: the first of so many.

    Raises:
        PydanticCustomError: if it is neither.
    """
    constraint = (
        f"a whole number of at least 1 and at most {MOST_SEEDS}, or a list of at most {MOST_SEEDS} "
        "distinct whole numbers of at least 0"
    )
    wrong = PydanticCustomError("constraint", "wrong seeds", {"constraint": constraint})
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SEEDS:
        return tuple(range(first, first + value))
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_SEEDS:
        raise wrong
    if any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in value):
        raise wrong
    if len(set(value)) < len(value):
        raise wrong
    return tuple(value)


def seeds_schema(default: int) -> dict[str, Any]:
    """Return the JSON Schema of seeds.

    Args:
        default: how many there are where a recipe does not say it.
    """
    return {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": MOST_SEEDS},
            {
                "type": "array",
                "items": {"type": "integer", "minimum": 0},
                "minItems": 1,
                "maxItems": MOST_SEEDS,
                "uniqueItems": True,
            },
        ],
        "default": default,
    }
