"""`backbone.device_map` in a recipe: no part of the identity, and what does not go with it."""

from __future__ import annotations

from typing import Any

import pytest

from softprompts.errors import RecipeError
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.reading import read_yaml


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
        (run(device_map={"encoder": -1}), "`backbone.device_map.* must be at least 0 .*is -1"),
        *(
            (
                run(device_map="auto", max_memory=limits),
                rf"`backbone.max_memory` must be sizes, .* by device: .* but is .*{shown}",
            )
            for limits, shown in (
                ({"cpu": -1}, "-1"),
                ({"cpu": "60 apples"}, "apples"),
                ({"gpu": 5}, "gpu"),
                ({-1: 5}, "-1"),
                ({0: "1GB", "0": "2GB"}, "2GB"),
            )
        ),
    ],
)
def test_what_does_not_go_with_a_map_is_refused(recipe, text):
    with pytest.raises(RecipeError, match=text):
        parse_run(recipe)


@pytest.mark.parametrize("written", ["{0: 20GB, cpu: 60GB}", '{"0": 20GB, "cpu": 60GB}'])
def test_memory_by_device_as_yaml_says_it(written):
    limits = read_yaml(written, "mine")
    config = parse_run(run(device_map="auto", max_memory=limits))
    assert config.backbone.max_memory == {0: "20GB", "cpu": "60GB"}
    kept = config.model_dump(mode="json")  # as config.json has it
    assert parse_run(kept).backbone.max_memory == {0: "20GB", "cpu": "60GB"}
