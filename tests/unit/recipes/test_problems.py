"""Sentences for what pydantic may find in any component, those of third parties included."""

from __future__ import annotations

import typing
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import PydanticCustomError

from softprompts.component import Component, ComponentOf
from softprompts.problems import describe, field_paths, show, unknown_key
from softprompts.registry import Option, Registry


def sentence(kind: Any, value: Any, **constraints: Any) -> list[str]:
    registry: Registry[Any] = Registry("test-part")
    registry.register("part", "nowhere:at_all", options={"x": Option(kind, None, "", constraints)})
    config = ConfigDict(arbitrary_types_allowed=True)
    field = typing.Annotated[Component, ComponentOf(registry, "part")]
    model = create_model("Holder", __config__=config, part=(field, ...))
    data = {"part": {"x": value}}
    with pytest.raises(ValidationError, match="x") as caught:
        model.model_validate(data)
    return [problem.text for problem in describe(caught.value, data, model)]


@pytest.mark.parametrize(
    ("kind", "value", "constraints", "rule"),
    [
        (int, 4, {"le": 3}, "at most 3, but is 4"),
        (int, 4, {"multiple_of": 3}, "a multiple of 3, but is 4"),
        (int | list[int], "a", {}, "a whole number or a list, but is 'a'"),
        (list[int] | dict[str, int], 1, {}, "a list or a mapping, but is 1"),
        (Literal["a", "b", "c"], "d", {}, "one of a, b, c, but is 'd'"),
        (str, "abc", {"max_length": 2}, "text of at most 2 characters, but is 'abc'"),
        (str, "abc", {"pattern": "^x+$"}, "text that matches ^x+$, but is 'abc'"),
        (str, "c", {"pattern": "^(a|b)$"}, "one of a, b, but is 'c'"),
        (list[int], [], {"min_length": 1}, "a collection of at least 1 entry, but is []"),
        (list[int], [1, 2, 3], {"max_length": 2}, "a collection of at most 2 entries, but is [1"),
        (tuple[int, ...], "abc", {}, "a list, but is 'abc'"),
        (dict[str, int], [1], {}, "a mapping, but is [1]"),
        (float, float("-inf"), {}, "a finite number, but is -Infinity"),
        (type(None), 3, {}, "null, but is 3"),
        (typing.Annotated[str, "date"], True, {}, "text, but is true"),
    ],
)
def test_rules_of_options(kind, value, constraints, rule):
    (found,) = sentence(kind, value, **constraints)

    assert f"`part.x` must be {rule}" in found


def test_a_place_inside_a_value_is_named():
    assert sentence(list[int], [1, "b", None]) == [
        "`part.x.1` must be a whole number, but is 'b'.",
        "`part.x.2` must be a whole number, but is null.",
    ]


def test_a_rule_of_somebody_else_keeps_its_message():
    def refuse(value: int) -> int:
        raise ValueError("Odd numbers only")

    from pydantic import AfterValidator

    (found,) = sentence(typing.Annotated[int, AfterValidator(refuse)], 2)

    assert found == "`part.x` must be valid (odd numbers only), but is 2."


def test_a_component_without_a_default_kind_must_name_one():
    registry: Registry[Any] = Registry("test-part")
    registry.register("part", "nowhere:at_all")

    with pytest.raises(ValidationError, match="kind") as caught:
        ComponentOf(registry).build({"x": 1})
    (found,) = describe(caught.value, {"x": 1}, BaseModel)

    assert found.text == "`kind` must be given, but is missing."


def test_what_is_neither_name_nor_mapping_is_refused():
    with pytest.raises(PydanticCustomError, match="wrong type"):
        ComponentOf(Registry("test-part")).build(3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.1, "0.1"),
        ("a'b", '''"a'b"'''),
        ([1, None], "[1, null]"),
        ({"ä": 1}, '{"ä": 1}'),
        (Component(kind="x", y=1), '{"kind": "x", "y": 1}'),
        (object, """"<class 'object'>\""""),
        ("x" * 200, "'" + "x" * 78 + "…"),
    ],
)
def test_values_are_shown_as_a_recipe_writes_them(value, text):
    assert show(value) == text


def test_unknown_keys_get_near_names_then_other_places_then_the_list():
    known, elsewhere = ("alpha", "beta"), ("deep.gamma", "alpha")

    assert unknown_key(["x", "alpa"], known, elsewhere).endswith("did you mean `x.alpha`?")
    assert unknown_key(["gamma"], known, elsewhere).endswith("did you mean `deep.gamma`?")
    assert unknown_key(["zzz"], known, elsewhere).endswith("the known keys here are alpha, beta.")
    assert unknown_key(["zzz"], (), ()).endswith("the known keys here are (none).")


def test_field_paths_name_sections_and_their_fields():
    class Inner(BaseModel):
        b: int

    class Outer(BaseModel):
        a: Inner
        c: int

    assert field_paths(Outer) == ("a", "a.b", "c")
    assert field_paths(Outer, "base.")[1] == "base.a.b"
