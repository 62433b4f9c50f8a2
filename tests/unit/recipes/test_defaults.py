"""What a field is where a recipe leaves it out."""

from __future__ import annotations

import copy

import pytest

from softprompts.errors import RecipeError
from softprompts.recipes.resolving import value_and_default

RUN = {
    "backbone": {"name": "minilm"},
    "task": {"name": "bundled/sentiment", "shots": 8},
    "prompt": {"method": "residual", "length": 3, "rows": {"bottleneck": 7}},
    "regularizers": [{"kind": "ptp", "perturbation": "masking", "weight": 3}],
    "training": {"learning_rate": 0.5, "steps": 4},
}


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("training.learning_rate", (0.5, 0.1)),
        ("prompt.length", (3, 10)),
        ("prompt.rows.bottleneck", (7, 400)),
        ("prompt.initializer.kind", ("vocabulary", "vocabulary")),
        ("regularizers.0.weight", (3.0, 0.3)),
        ("regularizers.1.weight", (None, None)),
        ("task.shots", (8, None)),
        ("task.name", ("bundled/sentiment", None)),
        ("prompt.method", ("residual", None)),
        ("training.steps", (4, None)),
        ("training.steps.more", (None, None)),
    ],
)
def test_a_value_and_what_it_would_be(field, found):
    before = copy.deepcopy(RUN)
    assert value_and_default(RUN, field) == found
    assert before == RUN


def test_a_component_is_spelled_out():
    data = {**RUN, "prompt": {"initializer": "uniform"}}
    own, default = value_and_default(data, "prompt.initializer")
    assert (own["kind"], default["kind"]) == ("uniform", "vocabulary")
    again, _ = value_and_default({**RUN, "prompt": {"initializer": own}}, "prompt.initializer")
    assert again == own


def test_a_recipe_that_is_wrong_is_refused():
    with pytest.raises(RecipeError, match="must be at least 1, but is -3"):
        value_and_default({**RUN, "training": {"steps": -3}}, "training.steps")


@pytest.mark.parametrize(
    ("prompt", "rate"),
    [
        ({"method": "p-tuning-v2"}, 0.02),
        ({"method": "prefix-tuning"}, 0.02),
        ({"method": "prompt-tuning", "depth": "every-layer"}, 0.02),
        ({"method": "p-tuning-v2", "depth": "input"}, 0.1),
        ({"method": "p-tuning-v2", "unit": "absolute"}, 0.01),
    ],
)
def test_rows_in_every_layer_have_a_rate_of_their_own(prompt, rate):
    data = {**RUN, "prompt": prompt, "training": {}}
    assert value_and_default(data, "training.learning_rate") == (rate, rate)
