"""Seeds as a recipe says them: a list, or how many, or how many more there may be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import PydanticCustomError

from softprompts.recipes.model import Section

MOST_SEEDS = 10000


class MoreSeedsConfig(Section):
    """Seeds that are added until one variant is shown to score higher than every other.

    Attributes:
        most: the most seeds that the study gets.
        budget_seconds: no seeds are added that would bring the training of all runs above so many
            seconds; null sets no bound.
        looks: after how many seeds the study was looked at; null begins. A study's folder keeps it
            here.
    """

    most: int = Field(20, ge=6, le=MOST_SEEDS)
    budget_seconds: float | None = Field(None, gt=0, strict=False)
    looks: Annotated[list[int], Field(min_length=1)] | None = None


def read_seeds(value: Any, first: int = 0) -> tuple[int, ...]:
    """Return the seeds that a recipe means: a list, or so many from the first on."""
    constraint = (
        f"a whole number of at least 1 and at most {MOST_SEEDS}, or a list of at most {MOST_SEEDS} "
        "distinct whole numbers of at least 0"
    )
    wrong = PydanticCustomError("constraint", "wrong seeds", {"constraint": constraint})
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SEEDS:
        return tuple(range(first, first + value))
    is_list = isinstance(value, list | tuple) and 1 <= len(value) <= MOST_SEEDS
    if not is_list or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in value):
        raise wrong
    if len(set(value)) < len(value):
        raise wrong
    return tuple(value)


def seeds_schema(default: int) -> dict[str, Any]:
    """Return the JSON Schema of seeds, so many by default."""
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


def grown(seeds: Sequence[int], num_seeds: int) -> tuple[int, ...]:
    """Return seeds with as many after them as bring them to a number, the lowest that are free.

    Example:
        >>> grown((1, 5), 4)
        (1, 5, 0, 2)
    """
    free = (seed for seed in count() if seed not in seeds)
    return (*seeds, *islice(free, max(0, num_seeds - len(seeds))))
