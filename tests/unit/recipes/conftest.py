"""What the recipe tests share: the smallest recipe, and a way to read problems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softprompts.errors import RecipeError
from softprompts.recipes.overrides import set_at
from softprompts.recipes.parsing import parse_run

SMALLEST: dict[str, Any] = {
    "backbone": {"name": "minilm"},
    "task": {"name": "bundled/sentiment"},
}


@pytest.fixture
def recipe() -> Callable[..., dict[str, Any]]:
    """Return a function that builds the smallest run recipe with dotted fields set on it."""

    def build(**fields: Any) -> dict[str, Any]:
        data: dict[str, Any] = {name: dict(part) for name, part in SMALLEST.items()}
        for field, value in fields.items():
            assert set_at(data, field.split("__"), value) == ""
        return data

    return build


@pytest.fixture
def problems() -> Callable[[Any], tuple[str, ...]]:
    """Return a function from a run recipe to its problems, none when it is right."""

    def find(data: Any) -> tuple[str, ...]:
        try:
            parse_run(data)
        except RecipeError as error:
            return error.problems
        return ()

    return find


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a text as a recipe file."""

    def put(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return put
