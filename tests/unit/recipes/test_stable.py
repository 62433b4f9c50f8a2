"""The recommended method is a preset over what exists."""

from __future__ import annotations

import pytest

from softprompts.errors import RecipeError
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.recipes.schema import PromptConfig, RunConfig
from softprompts.recipes.training_config import TrainingConfig

RUN = {"backbone": {"name": "smollm2"}, "task": {"name": "bundled/sentiment"}, "readout": "text"}
PARTS = {
    "prompt": {"method": "p-tuning-v2", "initializer": "text", "length": "text"},
    "readout": {"kind": "text", "objective": "ranking"},
    "training": {"learning_rate": 0.02},
}


def test_it_is_what_its_parts_say():
    stable = parse_run({**RUN, "prompt": {"method": "stable"}})
    assert identity(stable) == identity(parse_run({**RUN, **PARTS}))
    resolved = resolve(stable)
    assert resolve(parse_run(resolved.model_dump(mode="json"))) == resolved


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("training", "average", "tail"),
        ("training", "schedule", {"kind": "cosine"}),
        ("training", "learning_rate", 0.1),
        ("readout", "objective", "likelihood"),
        ("prompt", "initializer", "vocabulary"),
    ],
)
def test_what_the_recipe_says_wins(section, field, value):
    data = {**RUN, "readout": {"kind": "text"}, "prompt": {"method": "stable"}}
    data[section] = {**data.get(section, {}), field: value}
    parts = {name: dict(content) for name, content in PARTS.items()}
    parts[section][field] = value
    if field == "initializer":
        parts[section]["length"] = 10
    assert identity(parse_run(data)) == identity(parse_run({**RUN, **parts}))


@pytest.mark.parametrize(
    ("said", "length"),
    [
        ({}, "text"),
        ({"length": 10}, 10),
        ({"initializer": "labels"}, 10),
        ({"depth": "input"}, "text"),
        ({"depth": "input", "position": "instance"}, 10),
        ({"depth": "input", "active_length": "task"}, 10),
        ({"pool": "attention"}, 10),
        ({"from_run": {"folder": "runs/a", "digest": "0" * 64}}, 10),
        ({"initializer": {"kind": "text", "text": "one"}}, "text"),
    ],
)
def test_its_rows_are_as_many_as_the_texts_tokens_where_nothing_else_counts_them(said, length):
    prompt = {"method": "stable", **said}
    assert resolve(parse_run({**RUN, "prompt": prompt})).prompt.length == length


@pytest.mark.parametrize(
    "said", [{}, {"initializer": "labels"}, {"initializer": "text", "position": "task"}]
)
def test_a_length_that_no_text_tells_is_refused(said):
    with pytest.raises(RecipeError, match=r"`prompt.length` must be a number unless .* is 'text'"):
        resolve(parse_run({**RUN, "prompt": {"length": "text", **said}}))


def test_a_readout_without_objectives_is_left_as_it_is():
    resolved = resolve(parse_run({**RUN, "readout": "linear", "prompt": {"method": "stable"}}))
    assert resolved.readout.kind == "linear"
    assert "objective" not in resolved.readout.options


def test_configurations_made_in_python_are_filled_in_too():
    config = RunConfig(
        backbone=RUN["backbone"],
        task=RUN["task"],
        readout="text",
        prompt=PromptConfig(method="stable"),
        training=TrainingConfig(steps=4),
    )
    assert config.training.steps == 4
    assert config.readout.options["objective"] == "ranking"
