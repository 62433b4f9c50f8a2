"""A run recipe: defaults, every constraint in our own words, and what does not go together."""

from __future__ import annotations

import math
from typing import Any

import pytest

from softprompts.component import Component
from softprompts.errors import RecipeError
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.schema import PromptConfig, RunConfig, TaskConfig
from softprompts.recipes.training_config import TrainingConfig


def test_smallest_recipe_has_the_documented_defaults(recipe):
    config = parse_run(recipe())

    assert config.backbone.model_dump() == {
        "name": "minilm",
        "revision": None,
        "dtype": "float32",
        "device": "auto",
        "attention": None,
        "gradient_checkpointing": False,
        "compile": False,
        "device_map": None,
        "max_memory": None,
    }
    assert config.readout == Component(kind="linear", pool="auto")
    assert config.prompt == PromptConfig(method="prompt-tuning")
    assert config.training.optimizer.kind == "adamw"
    assert config.training.optimizer.options["weight_decay"] == 1e-5
    assert (config.training.epochs, config.training.steps) == (None, None)
    assert (config.training.batch_size, config.training.clip_norm) == (16, 1.0)
    assert (config.training.held_out_fraction, config.training.num_evaluations) == (0.2, 10)
    assert config.seed == 0


WRONG_VALUES: list[tuple[str, Any, str]] = [
    ("backbone__name", "", "`backbone.name` must be text of at least 1 character, but is ''."),
    ("backbone__name", 3, "`backbone.name` must be text, but is 3."),
    ("backbone__dtype", "fp16", "must be one of float32, bfloat16, float16, auto, but is 'fp16'"),
    ("backbone__device", None, "`backbone.device` must be text, but is null."),
    (
        "backbone__attention",
        "flash",
        "`backbone.attention` must be one of eager, fused, plain, sdpa, but is ",
    ),
    ("task__name", "bundled/sentimant", "Did you mean 'bundled/sentiment'"),
    ("task__name", None, "`task.name` must be text, but is null."),
    ("task__data_dir", 5, "`task.data_dir` must be text, but is 5."),
    ("task__shots", 0, "`task.shots` must be at least 1, but is 0."),
    ("task__shots", True, "`task.shots` must be a whole number, but is true."),
    ("task__shots_total", 2.5, "`task.shots_total` must be a whole number, but is 2.5."),
    ("task__sample_seed", -1, "`task.sample_seed` must be at least 0, but is -1."),
    ("task__max_tokens", 7, "`task.max_tokens` must be at least 8, but is 7."),
    ("task__allow_missing_labels", "yes", "`task.allow_missing_labels` must be true or false, b"),
    ("task__skip_bad_rows", 1, "`task.skip_bad_rows` must be true or false, but is 1."),
    ("task__options", [1], "`task.options` must be a mapping, but is [1]."),
    ("task__options", {"a": 1}, "`task.options.a` is an unknown key; the known keys here are (non"),
    ("task", 3, "`task` must be a mapping, but is 3."),
    ("readout", 4, "`readout` must be a name or a mapping with a `kind`, but is 4."),
    (
        "readout",
        "linaer",
        "`readout` must be one of linear, cloze, text, writing, but is 'linaer'. Di",
    ),
    ("readout", {"kind": 3}, "`readout.kind` must be text, but is 3."),
    ("readout", {"pool": "sum"}, "`readout.pool` must be one of auto, cls, mean, last, but is 'su"),
    (
        "prompt__method",
        "residul",
        "prompt.method` must be one of prompt-tuning, p-tuning, p-tuning-v2, prefix-tuning, resi",
    ),
    ("prompt__length", -1, "`prompt.length` must be at least 0 or one of text, but is -1."),
    (
        "prompt__length",
        10**11,
        "`prompt.length` must be at most 65536 or one of text, but is 100000000000.",
    ),
    ("prompt__rows", {"kind": "residual", "bottleneck": 10**17}, "bottleneck` must be at most 65"),
    ("prompt__rows", {"kind": "residual", "depth": 65}, "prompt.rows.depth` must be at most 64, "),
    ("prompt__rows", {"kind": "prefix-mlp", "bottleneck": 65537}, "must be at most 65536, but is"),
    ("prompt__rows", {"kind": "p-tuning", "hidden_size": 65537}, "must be at most 65536, but is"),
    ("prompt__rows", {"kind": "p-tuning", "num_layers": 65}, "num_layers` must be at most 64, but"),
    ("prompt__pool", {"kind": "attention", "size": 10**14}, "pool.size` must be at most 4096, but"),
    ("prompt__pool", {"kind": "task", "size": 4097}, "pool.size` must be at most 4096, but is 409"),
    ("adaptation", {"kind": "lora", "rank": 8193}, "adaptation.rank` must be at most 8192, but is"),
    ("prompt__length", "10", "`prompt.length` must be a whole number or one of text, but is '10'."),
    (
        "prompt__rows",
        "residul",
        "rows` must be one of plain, p-tuning, residual, prefix-mlp, low-rank, superposition, "
        "dept, but is 'residul'.",
    ),
    ("prompt__rows", {"kind": "residual", "botleneck": 4}, "mean `prompt.rows.bottleneck`?"),
    ("prompt__rows", {"kind": "residual", "bottleneck": 0}, "`prompt.rows.bottleneck` must be at"),
    ("prompt__rows", {"kind": "residual", "bottleneck": True}, "bottleneck` must be a whole numb"),
    ("prompt__rows", {"kind": "residual", "dropout": "0.1"}, "dropout` must be a number, but is '"),
    ("prompt__rows", {"kind": "residual", "dropout": 1.0}, "dropout` must be less than 1, but is"),
    ("prompt__initializer", "file", "`prompt.initializer.path` must be given, but is missing."),
    ("prompt__initializer", {"kind": "uniform", "range": math.inf}, "must be a finite number, but"),
    ("prompt__position", {"split": -1}, "`prompt.position.split` must be at least 0, but is -1."),
    ("prompt__active_length", "tsk", "length` must be one of fixed, task, instance, but is 'tsk'"),
    ("prompt__active_length", {"count": -1}, "active_length.count` must be at least 0, but is -1."),
    (
        "prompt__active_length",
        {"kind": "task", "start": -1},
        "start` must be at least 0, but is -1",
    ),
    ("prompt__active_length", {"kind": "task", "lead": math.nan}, "lead` must be a finite number,"),
    ("prompt__active_length", {"kind": "task", "count": 1}, "length.count` is an unknown key"),
    ("prompt__depth", "deep", "`prompt.depth` must be one of input, every-layer, but is 'deep'."),
    (
        "prompt__depth",
        {"kind": "every-layer", "from_layer": -1},
        "layer` must be at least 0, but is -1",
    ),
    (
        "training__optimizer",
        {"beta3": 1},
        "`training.optimizer.beta3` is an unknown key; did you",
    ),
    ("training__learning_rate", 0, "`training.learning_rate` must be greater than 0, but is 0."),
    ("training__learning_rate", math.nan, "`training.learning_rate` must be a finite number, but"),
    ("training__learning_rate", math.inf, "`training.learning_rate` must be a finite number, but"),
    ("training__learning_rate", True, "`training.learning_rate` must be a number, but is true."),
    ("training__readout_learning_rate", -0.5, "must be greater than 0, but is -0.5."),
    ("training__schedule", "cosin", "Did you mean 'cosine'"),
    ("training__batch_size", 0, "`training.batch_size` must be at least 1, but is 0."),
    ("training__epochs", 0, "`training.epochs` must be at least 1, but is 0."),
    ("training__steps", 0, "`training.steps` must be at least 1, but is 0."),
    ("training__accumulation_steps", 0, "`training.accumulation_steps` must be at least 1, but"),
    ("training__clip_norm", 0, "`training.clip_norm` must be greater than 0, but is 0."),
    ("training__selection", "best", "`training.selection` must be one of held-out, last, but is '"),
    ("training__held_out_fraction", 0, "`training.held_out_fraction` must be greater than 0, but"),
    ("training__held_out_fraction", 1, "`training.held_out_fraction` must be less than 1, but is"),
    ("training__num_evaluations", 0, "`training.num_evaluations` must be at least 1, but is 0."),
    ("training__patience", 0, "`training.patience` must be at least 1, but is 0."),
    ("training__checkpoint_every_steps", 0, "checkpoint_every_steps` must be at least 1, but is 0"),
    ("seed", -1, "`seed` must be at least 0, but is -1."),
    ("seed", 1.0, "`seed` must be a whole number, but is 1.0."),
    ("seed", False, "`seed` must be a whole number, but is false."),
    ("prompt__initializer", {"kind": "uniform", "range": 1e300}, "between ±1e+30, but is 1e+300"),
    ("prompt__active_length", {"kind": "task", "lead": 1e300}, "between ±1e+30, but is 1e+300"),
    ("training__optimizer", {"kind": "adafactor", "weight_decay": 1e300}, "`training.optimizer.we"),
    ("trainig", {}, "`trainig` is an unknown key; did you mean `training`?"),
    ("learning_rate", 1, "`learning_rate` is an unknown key; did you mean `training.learning_rate"),
    ("training__lr", 1, "`training.lr` is an unknown key; did you mean `training.learning_rate`?"),
    ("training__zz", 1, "`training.zz` is an unknown key; the known keys here are optimizer, lear"),
]


@pytest.mark.parametrize(("field", "value", "sentence"), WRONG_VALUES)
def test_a_wrong_value_is_one_clear_sentence(recipe, problems, field, value, sentence):
    found = problems(recipe(**{field: value}))

    assert len(found) == 1
    assert sentence in found[0]
    assert "\n" not in found[0]


@pytest.mark.parametrize("field", ["backbone", "task"])
def test_a_missing_section_is_named(recipe, problems, field):
    data = recipe()
    del data[field]

    assert problems(data) == (f"`{field}` must be given, but is missing.",)
    assert problems({**data, field: {}}) == (f"`{field}.name` must be given, but is missing.",)


@pytest.mark.parametrize("data", [None, 3, [1], "text"])
def test_a_recipe_that_is_no_mapping(problems, data):
    (found,) = problems(data)

    assert found.startswith("a recipe must be a mapping, but is ")


DO_NOT_GO_TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"training__epochs": 3, "training__steps": 4}, "`training.epochs` must be left out when `tra"),
    ({"task__shots": 3, "task__shots_total": 4}, "`task.shots_total` must be left out when `task."),
    (
        {"task__sample_seed": 4},
        "`task.sample_seed` must be left out where neither `task.shots` nor",
    ),
    ({"prompt__length": 0, "readout": "cloze"}, "`readout` must have trainable parameters when"),
    ({"prompt__length": 0, "readout": "text"}, "as linear has, but is 'text'."),
    ({"prompt__method": "head-only", "readout": "cloze"}, "`readout` must have trainable paramet"),
    ({"prompt__method": "head-only", "prompt__length": 4}, "with method head-only, but is 4."),
    ({"prompt__position": {"split": 11}}, "`prompt.position.split` must be at most `prompt.lengt"),
    ({"prompt__length": 3, "prompt__position": {"split": 4}}, "`prompt.length`, 3, but is 4."),
    ({"prompt__length": 0, "prompt__rows": "residual"}, "`prompt.rows` must be left out when"),
    ({"prompt__length": 0, "prompt__initializer": "normal"}, "`prompt.initializer` must be left"),
    ({"prompt__length": 0, "prompt__position": {"split": 0}}, "`prompt.position` must be left"),
    *(
        (
            {"prompt__method": method, "prompt__length": 0},
            f"`prompt.length` must be at least 1 with method {method}, but is 0.",
        )
        for method in ("adap-pos", "residual", "p-tuning", "p-tuning-v2", "adap-ins-vec-pos")
    ),
    *(
        (
            {"training__steps": steps, "training__schedule": {"kind": kind, "warmup_steps": 10}},
            f"`training.schedule.warmup_steps` must be less than the {steps} updates of the run, ",
        )
        for kind, steps in (("constant", 10), ("linear", 4), ("cosine", 4))
    ),
    (
        {"prompt__method": "adap-pos", "training__temperature": {"start": 0.1}},
        "`training.temperature.start` must be at least the floor that it falls to, 0.5, but is 0.1",
    ),
    ({"prompt__active_length": {"count": 11}}, "`prompt.active_length.count` must be at most"),
    ({"prompt__method": "adap-len", "prompt__active_length": {"start": 12}}, "10, but is 12."),
    ({"prompt__length": 0, "prompt__active_length": "task"}, "`prompt.active_length` must be left"),
    ({"prompt__length": 0, "prompt__depth": "every-layer"}, "`prompt.depth` must be left out when"),
    (
        {"prompt__depth": "every-layer", "prompt__position": {"split": 2}},
        "have no place in the inp",
    ),
    (
        {"prompt__method": "adap-pos", "prompt__depth": "every-layer"},
        "in the input, but is 'task'.",
    ),
    ({"training__temperature": "constant"}, "must be left out with a fixed position and length"),
    ({"training__selection": "last", "training__patience": 2}, "`training.patience` must be left"),
    ({"readout": "cloze", "training__readout_learning_rate": 0.5}, "nothing to train, but is 0.5"),
    ({"task__data_dir": "data"}, "`task.data_dir` must be left out for bundled/sentiment"),
    ({"task__name": "fewglue/cb"}, "`task.data_dir` must be the folder with the files of fewglue/"),
]


@pytest.mark.parametrize(("fields", "sentence"), DO_NOT_GO_TOGETHER)
def test_fields_that_do_not_go_together(recipe, problems, fields, sentence):
    found = problems(recipe(**fields))

    assert len(found) == 1
    assert sentence in found[0]


def test_parts_that_do_not_go_together_do_when_one_changes(recipe, problems):
    assert problems(recipe(training__steps=4)) == ()
    assert problems(recipe(prompt__length=4, prompt__position={"split": 4})) == ()
    assert problems(recipe(prompt__method="head-only", prompt__length=0)) == ()
    assert problems(recipe(prompt__active_length={"count": 10})) == ()
    assert problems(recipe(prompt__method="adap-pos", prompt__active_length="task")) == ()
    assert problems(recipe(prompt__depth="every-layer", prompt__position="fixed")) == ()
    assert problems(recipe(prompt__depth="every-layer", prompt__active_length="task")) == ()
    assert problems(recipe(prompt__method="adap-len", training__temperature="constant")) == ()
    falls = {"start": 0.5, "floor": 0.5}
    assert problems(recipe(prompt__method="adap-len", training__temperature=falls)) == ()
    assert problems(recipe(training__steps=11, training__schedule={"warmup_steps": 10})) == ()
    assert problems(recipe(readout="cloze")) == ()
    assert problems(recipe(training__patience=2)) == ()
    assert problems(recipe(task__name="fewglue/cb", task__data_dir="data")) == ()


def test_every_problem_is_found_at_once_in_recipe_order(recipe, problems):
    data = recipe(
        backbone__dtype="int8",
        task__shots=2,
        task__shots_total=2,
        training__epochs=1,
        training__steps=1,
        training__learning_rate=-1,
        seed=-3,
        sead=1,
    )

    found = problems(data)

    assert [sentence.split("`")[1] for sentence in found] == [
        "backbone.dtype",
        "training.learning_rate",
        "seed",
        "sead",
        "task.shots_total",
        "training.epochs",
    ]


def test_a_combination_is_found_beside_missing_sections(problems):
    found = problems({"training": {"epochs": 1, "steps": 2}})

    assert len(found) == 3
    assert "`training.epochs` must be left out" in found[2]


def test_a_combination_with_a_wrong_field_is_not_reported(recipe, problems):
    data = recipe(prompt__length="ten", prompt__position={"split": 12})

    assert problems(data) == (
        "`prompt.length` must be a whole number or one of text, but is 'ten'.",
    )


def test_a_wrong_kind_does_not_hide_other_problems(recipe, problems):
    data = recipe(prompt__rows={"kind": "residul", "bottleneck": 3}, readout={"kind": "cloz"})
    data |= recipe(task__shots=1, task__shots_total=1) | {"training": {"steps": 1, "epochs": 1}}

    found = problems({**data, "prompt": {"rows": {"kind": "residul", "bottleneck": 3}}})

    assert [text.split("`")[1] for text in found] == [
        "readout.kind",
        "prompt.rows.kind",
        "task.shots_total",
        "training.epochs",
    ]


def test_options_of_the_files_task_are_checked(recipe, problems):
    data = recipe(task__name="files", task__options={"trian": "a.csv", "labels": ["no", 1]})

    found = problems(data)

    assert "`task.options.train` must be given, but is missing." in found
    assert "`task.options.validation` must be given, but is missing." in found
    assert "`task.options.labels.1` must be text, but is 1." in found
    assert any("did you mean `task.options.train`" in text for text in found)
    whole = {"train": "a.csv", "validation": "b.csv", "template": "{text}"}
    assert problems(recipe(task__name="files", task__options=whole)) == ()
    wrong = {**whole, "template": None, "templates": {"linaer": "{text}", "linear": "{text}"}}
    (alone,) = problems(recipe(task__name="files", task__options=wrong))
    assert alone.startswith("`task.options`: readout must be one of linear, cloze, text, but is")
    assert "'linaer'. Did you mean 'linear'" in alone
    (alone,) = problems(recipe(task__name="files", task__options={**whole, "hub_config": "x"}))
    assert "`task.options`: `hub_config` must come with `hub_dataset`, but is 'x'" in alone


def test_names_of_folders_and_hub_ids_are_left_to_the_loader(recipe, problems, tmp_path):
    assert problems(recipe(backbone__name="some/model")) == ()
    assert problems(recipe(backbone__name="gpt2")) == ()
    (found,) = problems(recipe(backbone__name="minlm"))
    assert "but is 'minlm'. Did you mean 'minilm' or 'smollm2'?" in found


def test_a_component_is_a_name_or_a_flat_mapping(recipe):
    by_name = parse_run(recipe(prompt__rows="residual"))
    by_mapping = parse_run(recipe(prompt__rows={"kind": "residual", "bottleneck": 400}))

    assert by_name == by_mapping
    assert by_name.model_dump()["prompt"]["rows"]["bottleneck"] == 400
    assert parse_run(by_name.model_dump(mode="json")) == by_name


def test_options_without_a_kind_belong_to_the_kind_that_would_be_chosen(recipe):
    config = parse_run(
        recipe(
            prompt__method="residual",
            prompt__rows={"bottleneck": 7},
            training__optimizer={"beta1": 0.5},
        )
    )

    assert config.prompt.rows == Component(
        **{**parse_run(recipe(prompt__rows="residual")).prompt.rows.model_dump(), "bottleneck": 7}
    )
    assert config.training.optimizer.kind == "adamw"
    assert config.training.optimizer.options["beta1"] == 0.5


def test_a_float_option_takes_a_whole_number(recipe):
    config = parse_run(recipe(prompt__initializer={"kind": "uniform", "range": 1}))

    assert isinstance(config.prompt.initializer.options["range"], float)


def test_parts_built_in_python_report_the_same_sentences():
    with pytest.raises(
        RecipeError, match=r"PromptConfig: `length` must be at least 0 or one of text, but is -1"
    ):
        PromptConfig(length=-1)
    with pytest.raises(RecipeError, match=r"`lenght` is an unknown key; did you mean `length`"):
        PromptConfig(lenght=3)
    with pytest.raises(RecipeError, match=r"`optimizer.beta1` must be less than 1, but is 4"):
        TrainingConfig(optimizer={"kind": "adamw", "beta1": 4})
    with pytest.raises(RecipeError, match=r"TaskConfig: `name` must be given, but is missing"):
        TaskConfig()
    with pytest.raises(RecipeError, match=r"`options.zzz` is an unknown key"):
        TaskConfig(name="bundled/sentiment", options={"zzz": 1})


def test_a_config_takes_parts_built_in_python(recipe):
    prompt = PromptConfig(method="residual", rows=Component(kind="residual", bottleneck=5))
    config = RunConfig.model_validate({**recipe(), "prompt": prompt})

    assert config.prompt.rows.options["bottleneck"] == 5
    assert config.prompt.rows.options["depth"] == 1


def test_a_config_cannot_be_changed(recipe):
    config = parse_run(recipe())

    with pytest.raises(ValueError, match=r"seed\n  Instance is frozen"):
        config.seed = 1


def test_long_values_are_shortened(recipe, problems):
    (found,) = problems(recipe(seed="x" * 5000))

    assert len(found) < 150
    assert found.endswith("….")


def test_parts_built_in_python_go_into_a_run_with_their_nulls(recipe):
    """A null that differs from the default, as of `clip_norm`, must not be lost on the way."""
    data = {
        **recipe(),
        "training": TrainingConfig(clip_norm=None),
        "prompt": PromptConfig(length=2),
    }
    config = parse_run(data)

    assert config.training.clip_norm is None
    assert config.prompt.length == 2
    assert parse_run(config.model_dump(mode="json")) == config


def test_problems_are_found_beside_parts_built_in_python(problems):
    found = problems({"training": TrainingConfig(steps=1, epochs=1), "task": {"name": "files"}})

    assert [text.split("`")[1] for text in found] == [
        "backbone",
        "task.options.train",
        "task.options.validation",
        "training.epochs",
    ]
