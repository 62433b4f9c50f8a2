"""The committed JSON Schemas are current, and agree with the real checks."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from softprompts.problems import field_paths
from softprompts.recipes.json_schema import run_schema, study_schema, write_schemas
from softprompts.recipes.loading import read_recipe, shipped_recipes
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.study import StudyConfig
from softprompts.registry import Registry

FOLDER = Path(__file__).resolve().parents[3] / "schema"
SMALLEST = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}
RUN, STUDY = map(jsonschema.Draft202012Validator, (run_schema(), study_schema()))


def validate(data, validator):
    """Do what `jsonschema.validate` does, but for checking the schema each time."""
    error = jsonschema.exceptions.best_match(validator.iter_errors(data))
    if error is not None:
        raise error


def test_committed_schemas_are_current(tmp_path):
    """Write them again with `python -m softprompts.recipes.json_schema schema`."""
    write_schemas(tmp_path)

    for name in ("recipe.schema.json", "study.schema.json"):
        assert (FOLDER / name).read_text("utf-8") == (tmp_path / name).read_text("utf-8")


@pytest.mark.parametrize("schema", [RUN.schema, STUDY.schema], ids=["run", "study"])
def test_schemas_are_valid_schemas(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(jsonschema.SchemaError, match="'record' is not valid"):
        jsonschema.Draft202012Validator.check_schema({**schema, "type": "record"})


def test_shipped_recipes_fit_their_schema():
    for name in shipped_recipes():
        data, _ = read_recipe(name)
        found = (STUDY if "base" in data else RUN).iter_errors(data)
        assert [error.message for error in found] == [], name


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("trainig: {}", "trainig"),
        ("seed: -1", "minimum"),
        ("prompt: {rows: residul}", "residul"),
        ("prompt: {method: residul}", "residul"),
        ("prompt: {rows: {kind: residual, bottleneck: 0}}", "minimum"),
        ("prompt: {rows: {kind: residual, depth: 0}}", "depth"),
        ("prompt: {active_length: {kind: task, count: 3}}", "count"),
        ("prompt: {depth: {kind: every-layer, from_layer: -1}}", "from_layer"),
        ("prompt: {initializer: {kind: file}}", "path"),
        ("training: {learning_rate: 0}", "exclusiveMinimum"),
        ("task: {name: bundled/sentimant}", "sentimant"),
        ("backbone: {}", "required"),
    ],
)
def test_schemas_refuse_what_is_wrong(change, word):
    data = {**SMALLEST, **yaml.safe_load(change)}

    with pytest.raises(jsonschema.ValidationError, match=word):
        validate(data, RUN)
    if word != "required" and word != "minimum":
        with pytest.raises(jsonschema.ValidationError, match=word):
            validate({"base": data}, STUDY)


def test_a_study_may_be_partial_where_a_run_may_not():
    validate({"base": {"prompt": {"rows": {"bottleneck": 3}}}}, STUDY)
    with pytest.raises(jsonschema.ValidationError, match="seed"):
        validate({"base": {"seed": 3}}, STUDY)


@pytest.mark.parametrize("model", [RunConfig, StudyConfig])
def test_every_field_is_described_in_its_docstring(model):
    schema = (RUN if model is RunConfig else STUDY).schema
    for path in field_paths(model):
        node = schema
        for name in path.split("."):
            if "anyOf" in node:
                (node,) = [branch for branch in node["anyOf"] if "$ref" in branch]
            if "$ref" in node:
                node = schema["$defs"][node["$ref"].split("/")[-1]]
            node = node["properties"][name]
        assert len(node["description"]) > 5, path


def test_a_description_goes_on_over_further_lines():
    dtype = RUN.schema["$defs"]["BackboneConfig"]["properties"]["dtype"]["description"]

    assert dtype.startswith("the precision of its weights; ")
    assert "always float32. `auto` is bfloat16 where" in dtype
    assert dtype.endswith("`config.json`.")


def test_schemas_know_no_third_party_parts():
    """The committed files hold what comes with the library; a plug-in would show here."""
    assert isinstance(json.dumps(RUN.schema), str)
    assert Registry("readout").names() == ()
