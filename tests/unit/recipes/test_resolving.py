"""Presets are lines over the axes, and an explicit axis wins."""

from __future__ import annotations

import pytest

from softprompts.errors import RecipeError
from softprompts.prompts.registry import (
    ACTIVE_LENGTHS,
    DEPTHS,
    INITIALIZERS,
    POOLS,
    POSITIONS,
    ROWS,
)
from softprompts.recipes.component_fields import AXES
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.presets import METHODS
from softprompts.recipes.resolving import resolve, resolve_prompt
from softprompts.recipes.schema import PromptConfig


def of_method(recipe, method):
    """Return a run of a method, with a readout that trains nothing where the method does not."""
    given = {} if METHODS[method].is_trained else {"readout": "text"}
    return parse_run(recipe(prompt__method=method, **given))


@pytest.mark.parametrize("method", METHODS)
def test_every_preset_names_known_parts_and_resolves(recipe, method):
    preset = METHODS[method]
    resolved = resolve(of_method(recipe, method))

    assert preset.rows in ROWS
    assert preset.pool in POOLS
    assert preset.position in POSITIONS
    assert preset.active_length in ACTIVE_LENGTHS
    assert preset.depth in DEPTHS
    assert preset.initializer in INITIALIZERS
    assert resolved.prompt.length == preset.length
    for axis in AXES:
        assert getattr(resolved.prompt, axis).kind == getattr(preset, axis)


def test_methods_differ_in_what_they_resolve_to(recipe):
    runs = {name: resolve(of_method(recipe, name)) for name in METHODS}
    found = {name: run.prompt.model_dump(exclude={"method"}) for name, run in runs.items()}
    adapted = {name: run.adaptation.kind for name, run in runs.items()}

    assert found["prompt-tuning"]["rows"]["kind"] == "plain"
    assert found["p-tuning"]["rows"]["kind"] == "p-tuning"
    assert found["p-tuning-v2"]["depth"]["kind"] == "every-layer"
    assert found["prefix-tuning"]["rows"]["kind"] == "prefix-mlp"
    assert found["residual"]["rows"]["kind"] == "residual"
    assert found["adap-len"]["active_length"]["kind"] == "task"
    assert found["adap-ins-len"]["active_length"]["kind"] == "instance"
    assert found["head-only"]["length"] == 0
    assert found["head-only"] == found["fine-tuning"] == found["lora"] == found["zero-shot"]
    assert (adapted["fine-tuning"], adapted["lora"]) == ("full", "lora")
    assert {adapted[name] for name in METHODS if name not in ("fine-tuning", "lora")} == {"none"}
    updates = {name: (run.training.steps, run.training.epochs) for name, run in runs.items()}
    assert {name for name, one in updates.items() if one == (None, None)} == {
        "zero-shot",
        "instruction",
        "in-context",
    }
    whole = {f"{found[name]} {adapted[name]} {updates[name]}" for name in METHODS}
    assert len(whole) == len(METHODS)


def test_an_explicit_axis_wins(recipe):
    config = parse_run(
        recipe(
            prompt__method="residual",
            prompt__length=3,
            prompt__rows="plain",
            prompt__initializer="normal",
            prompt__position={"split": 1},
        )
    )
    prompt = resolve(config).prompt

    assert (prompt.length, prompt.rows.kind, prompt.initializer.kind) == (3, "plain", "normal")
    assert prompt.position.options == {"split": 1, "after_bos": False}


def test_epochs_are_filled_in_only_without_steps(recipe):
    silent = resolve(parse_run(recipe())).training
    in_steps = resolve(parse_run(recipe(training__steps=7))).training

    assert (silent.epochs, silent.steps) == (20, None)
    assert (in_steps.epochs, in_steps.steps) == (None, 7)


@pytest.mark.parametrize("method", METHODS)
def test_resolving_again_changes_nothing(recipe, method):
    resolved = resolve(of_method(recipe, method))

    assert resolve(resolved) == resolved
    assert resolve(parse_run(resolved.model_dump(mode="json"))) == resolved


def test_without_rows_the_axes_are_the_plain_ones(recipe):
    prompt = resolve(parse_run(recipe(prompt__length=0))).prompt

    assert (prompt.rows.kind, prompt.position.kind, prompt.length) == ("plain", "fixed", 0)
    assert (prompt.active_length.kind, prompt.depth.kind) == ("fixed", "input")


def test_options_alone_are_those_of_the_presets_kind(recipe):
    data = recipe(prompt__method="adap-len", prompt__active_length={"start": 3})
    length = resolve(parse_run(data)).prompt.active_length
    data = recipe(prompt__method="p-tuning-v2", prompt__depth={"from_layer": 2})
    depth = resolve(parse_run(data)).prompt.depth

    assert (length.kind, length.options["start"]) == ("task", 3)
    assert (depth.kind, depth.options["from_layer"]) == ("every-layer", 2)


def test_resolving_refuses_what_does_not_go_together(recipe):
    config = parse_run(recipe())
    wrong = config.model_copy(
        update={"training": config.training.model_copy(update={"steps": 3, "epochs": 4})}
    )

    with pytest.raises(RecipeError, match=r"`training.epochs` must be left out .* but is 4"):
        resolve(wrong)


@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_resolves_alone_as_it_does_in_a_run(recipe, method):
    in_a_run = resolve(of_method(recipe, method)).prompt

    assert resolve_prompt(PromptConfig(method=method)) == in_a_run


def test_a_prompt_alone_refuses_what_does_not_go_together():
    with pytest.raises(RecipeError, match=r"`prompt.position.split` must be at most .* but is 5"):
        resolve_prompt(PromptConfig(length=4, position={"kind": "fixed", "split": 5}))
