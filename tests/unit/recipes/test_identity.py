"""Equal identities exactly where runs compute the same."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.recipes import identity as identity_module
from softprompts.recipes.component_fields import COMPONENT_FIELDS
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.registry import Entry
from softprompts.tasks.registry import TASKS

SMALLEST = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}

SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "readout": st.sampled_from(["linear", {"kind": "linear", "pool": "mean"}]),
        "prompt": st.fixed_dictionaries(
            {},
            optional={
                "method": st.sampled_from(["prompt-tuning", "residual"]),
                "length": st.integers(1, 50),
                "rows": st.sampled_from(["plain", {"kind": "residual", "depth": 2}]),
                "initializer": st.sampled_from(["normal", {"kind": "uniform", "range": 2}]),
            },
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": st.floats(1e-6, 10, allow_subnormal=False),
                "batch_size": st.integers(1, 64),
                "optimizer": st.sampled_from(["adamw", {"kind": "adafactor"}]),
                "clip_norm": st.none() | st.floats(0.1, 5),
            },
        ),
        "seed": st.integers(0, 2**40),
    },
)


def shuffled(value: Any, order: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    keys = list(value)
    order.shuffle(keys)
    return {key: shuffled(value[key], order) for key in keys}


@given(SECTIONS, st.randoms(use_true_random=False))
def test_key_order_and_spelled_out_defaults_do_not_matter(sections, order):
    data = {**SMALLEST, **sections}
    config = parse_run(data)
    spelled_out = resolve(config).model_dump(mode="json")

    assert identity(parse_run(shuffled(data, order))) == identity(config)
    assert identity(parse_run(shuffled(spelled_out, order))) == identity(config)
    assert re.fullmatch("[0-9a-f]{16}", identity(config))


@given(SECTIONS, SECTIONS)
def test_identities_are_equal_exactly_when_resolved_runs_are(one, other):
    first, second = (resolve(parse_run({**SMALLEST, **sections})) for sections in (one, other))
    is_same = identity_module.computed(first) == identity_module.computed(second)

    assert (identity(first) == identity(second)) == is_same


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backbone__device", "cuda:1"),
        ("backbone__compile", False),
        ("training__checkpoint_every_steps", 5),
        ("prompt__rows", "plain"),
        ("prompt__active_length", "fixed"),
        ("prompt__depth", {"kind": "input"}),
        ("prompt__length", 10),
        ("training__epochs", 20),
        ("training__learning_rate", 0.1),
        ("task__options", {}),
    ],
)
def test_presentation_and_explicit_defaults_do_not_matter(recipe, field, value):
    assert identity(parse_run(recipe(**{field: value}))) == identity(parse_run(recipe()))


def test_a_method_is_only_a_name_for_its_axes(recipe):
    by_name = parse_run(recipe(prompt__method="residual"))
    by_axis = parse_run(recipe(prompt__method="prompt-tuning", prompt__rows="residual"))

    assert identity(by_name) == identity(by_axis)


def test_what_an_instance_vector_is_matters(recipe):
    one, other = (
        parse_run(recipe(prompt__method="adap-ins-vec", prompt__instance=kind))
        for kind in ("states", "embeddings")
    )

    assert identity(one) != identity(other)
    assert identity(one) == identity(parse_run(recipe(prompt__method="adap-ins-vec")))


def test_the_data_folder_does_not_matter(recipe):
    one, other = (
        parse_run(recipe(task__name="fewglue/cb", task__data_dir=d)) for d in ("one", "other")
    )

    assert identity(one) == identity(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backbone__name", "other/model"),
        ("backbone__dtype", "bfloat16"),
        ("backbone__attention", "eager"),
        ("backbone__compile", True),
        ("task__name", "bundled/entailment"),
        ("task__shots", 8),
        ("task__shots_total", 8),
        ("task__max_tokens", 64),
        ("task__allow_missing_labels", True),
        ("task__skip_bad_rows", True),
        ("readout", "cloze"),
        ("readout__pool", "mean"),
        ("prompt__method", "residual"),
        ("prompt__method", "head-only"),
        ("prompt__method", "fine-tuning"),
        ("prompt__method", "lora"),
        ("prompt__length", 11),
        ("prompt__initializer", "normal"),
        ("prompt__position", {"split": 10}),
        ("prompt__active_length", {"count": 9}),
        ("prompt__active_length", "task"),
        ("prompt__depth", "every-layer"),
        ("training__optimizer__beta1", 0.8),
        ("training__learning_rate", 0.031),
        ("training__readout_learning_rate", 0.002),
        ("training__schedule", "linear"),
        ("training__batch_size", 8),
        ("training__epochs", 19),
        ("training__steps", 20),
        ("training__accumulation_steps", 2),
        ("training__clip_norm", None),
        ("training__selection", "last"),
        ("training__held_out_fraction", 0.3),
        ("training__num_evaluations", 9),
        ("training__patience", 9),
        ("seed", 1),
    ],
)
def test_everything_that_is_computed_matters(recipe, field, value):
    assert identity(parse_run(recipe(**{field: value}))) != identity(parse_run(recipe()))


def test_a_seed_of_the_sample_matters(recipe):
    found = [
        identity(parse_run(recipe(task__shots=8, task__sample_seed=seed))) for seed in (None, 0, 1)
    ]

    assert len(set(found)) == 3


@pytest.mark.parametrize("field", ["task", *COMPONENT_FIELDS])
def test_a_components_version_matters(recipe, monkeypatch, field):
    data = recipe(training__average="tail")
    if field == "mixture.sampling":
        data["mixture"] = {"tasks": {"a": data.pop("task")}}
    config = parse_run(data)
    before = identity(config)
    held, name = TASKS, "bundled/sentiment"
    if field != "task":
        held, name = COMPONENT_FIELDS[field].registry, resolve(config)
        for key in field.split("."):
            name = getattr(name, key)
        name = name.kind
    entry = held.entry(name)
    newer = Entry(entry.name, entry.target, version=entry.version + 1, options=entry.options)
    monkeypatch.setitem(held._entries, name, newer)

    assert identity(config) != before


def test_the_identity_of_an_example_never_changes(recipe):
    """That of absolute numbers is from before rows had a unit."""
    config = {"prompt__method": "residual", "training__steps": 120, "seed": 3}

    absolute = parse_run(recipe(**config, prompt__unit="absolute"))
    assert identity(absolute) == "e027311e203514c1"
    assert identity(parse_run(recipe(**config))) == "fea795cba046b0f9"
