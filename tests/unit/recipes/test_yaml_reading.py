"""YAML as people mean it, and one line for every way it can be broken."""

from __future__ import annotations

import math

import pytest

from softprompts.errors import RecipeError
from softprompts.recipes.reading import _Loader, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("1.0e-5", 1e-5),
        ("+1.5", 1.5),
        ("-.5", -0.5),
        ("3.", 3.0),
        (".inf", math.inf),
        ("0", 0),
        ("-12", -12),
        ("010", "010"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-02", "2024-01-02"),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1'", "1"),
        ("e3", "e3"),
        ("{0: a, -1: b, c: {2: d}}", {"0": "a", "-1": "b", "c": {"2": "d"}}),
        ("{a: {<<: {0: x}, d: 2}}", {"a": {"0": "x", "d": 2}}),
        ("[no, 1e-2, {a: off}]", ["no", 0.01, {"a": "off"}]),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_scalars_mean_what_they_look_like(text, value):
    found = read_yaml(text, "mine")

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", r"line 3, column 1: .* a key must stand once, but 'a' stands again"),
        ("x: {b: 1, b: 2}", r"line 1, column 11: .* 'b' stands again"),
        ("a:\n  1.5: x", r"line 2, column 3: .* a key must be text, but is 1.5"),
        ("{0: x, '0': y}", r"a key must stand once, but '0' stands again"),
        ("true: x", r"a key must be text, but is True"),
        ("[a]: x", r"a key must be text, but is \['a'\]"),
        ("a: [1, 2", r"line 1, column 9: the text must be valid YAML, but expected"),
        ("a: b: c", r"line 1, column 5: .* mapping values are not allowed here"),
        ("a: 1\n--- \nb: 2", r"line 2, column 1: .* valid YAML, but found another document"),
        (
            "a: !!python/object:os.system x",
            r"fit its value, but is '!!python/object:os.system'",
        ),
        ("a: *x", r"line 1, column 4: .* found undefined alias 'x'"),
        ("a: \x01", r"the text must be valid YAML, but is not: .*special characters"),
        ("a: &x [*x]", r"values must nest at most 50 deep and number at most 10000"),
        ("a: [" + "1," * 30000 + "]", r"has more than 10000 values"),
        ("a: !!bool 'x'", r"must be left out or fit its value, but is '!!bool'"),
        ("a: !!timestamp x", r"but is '!!timestamp'"),
        ("a: !!int ''", r"but is '!!int'"),
        ("a: !!float ''", r"but is '!!float'"),
        ("a: !!map [1]", r"but is '!!map'"),
        ("a: !!set [a]", r"but is '!!set'"),
        ("[" * 60 + "]" * 60, r"values must nest at most 50 deep"),
        ("a: " + "9" * 5000, r"the text must be plain YAML, but is not: .*5000 digits"),
    ],
)
def test_broken_text_is_one_sentence_with_its_place(text, sentence):
    with pytest.raises(RecipeError, match=sentence) as caught:
        read_yaml(text, "mine")

    assert caught.value.source == "mine"
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]


def test_aliases_cannot_blow_up():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]

    with pytest.raises(RecipeError, match="number at most 10000"):
        read_yaml("\n".join(lines), "mine")


def test_merges_are_counted_before_they_are_written_out(monkeypatch):
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 9)]
    monkeypatch.setattr(_Loader, "construct_document", lambda *_: pytest.fail("written out"))

    with pytest.raises(RecipeError, match="number at most 10000"):
        read_yaml("\n".join(lines), "mine")


def test_tags_that_fit_are_read():
    text = "{a: !!str 1, b: !!float 1, c: !!int 5, d: !!bool true, e: !!null null, f: ! x}"

    assert read_yaml(text, "mine") == {"a": "1", "b": 1.0, "c": 5, "d": True, "e": None, "f": "x"}
