"""`backbone.device_map` in a recipe: no part of the identity, and what does not go with it."""

from __future__ import annotations

from typing import Any

import pytest

from softprompts.errors import RecipeError
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run


def run(prompt: str = "prompt-tuning", **backbone: Any) -> dict[str, Any]:
    return {
        "backbone": {"name": "minilm", **backbone},
        "task": {"name": "superglue/cb", "data_dir": "data"},
        "prompt": {"method": prompt},
    }


@pytest.mark.parametrize(
    "place",
    [
        {"device_map": "auto", "max_memory": {0: "20GB", "cpu": "60GB"}},
        {"device_map": {"embeddings": 0, "encoder": "disk"}},
    ],
)
def test_where_weights_lie_is_no_part_of_the_identity(place):
    config = parse_run(run(**place))
    assert config.backbone.device_map == place["device_map"]
    assert identity(config) == identity(parse_run(run()))


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (run(device_map="auto", device="cpu"), "`backbone.device` must be 'auto' with .*'cpu'"),
        (run(device_map="auto", compile=True), "`backbone.compile` must be false .* is true"),
        (run("lora", device_map="auto"), "`adaptation` must be 'none' .* is 'lora'"),
        (run(max_memory={"cpu": "1GB"}), "`backbone.max_memory` must be left out .*1GB"),
        (run(device_map="evenly"), "`backbone.device_map` must be .*'evenly'"),
        (run(device_map={}), "`backbone.device_map` must .*"),
    ],
)
def test_what_does_not_go_with_a_map_is_refused(recipe, text):
    with pytest.raises(RecipeError, match=text):
        parse_run(recipe)
