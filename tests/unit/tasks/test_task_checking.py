"""Tasks that a program built, and what `load_task` is given: wrong ones are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from softprompts.errors import DataError, RecipeError
from softprompts.examples import Example, TaskFormat
from softprompts.tasks.base import Task
from softprompts.tasks.checking import check_task
from softprompts.tasks.loading import load_task

FORMAT = TaskFormat("own", 1, ("bad", "good"), {"linear": "{text}"}, {}, ("accuracy",))
ROWS = tuple(Example({"text": "some words"}, (i % 2,)) for i in range(4))
TASK = Task(FORMAT, ROWS, (), ROWS)

FORMATS: dict[str, tuple[dict[str, Any], str]] = {
    "equal labels": ({"labels": ("bad", "bad")}, r"distinct, but are \['bad', 'bad'\]"),
    "one label": ({"labels": ("bad",)}, r"at least two and distinct, but are \['bad'\]"),
    "labels as text": ({"labels": "bad"}, "format of own: `labels` must be a list, but is 'bad'"),
    "a number as a label": ({"labels": ("bad", 7)}, r"`labels.1` must be text, but is 7"),
    "a number as a template": ({"templates": {"linear": 5}}, "`templates.linear` must be text"),
    "words as text": ({"verbalizer": "x"}, "`verbalizer` must be a mapping, but is 'x'"),
    "no metric": ({"metrics": ()}, r"`metrics` must be .*at least 1 entry, but is \[\]"),
}
EXAMPLES: dict[str, tuple[Any, str]] = {
    "column beyond": (Example({"text": "a"}, (7,)), r"columns from 0 to 1, but is \(7,\)"),
    "column below": (Example({"text": "a"}, (-1,)), r"from 0 to 1, but is \(-1,\)"),
    "a label": (
        Example({"text": "a"}, ("good",), source="here:3"),
        r"here:3, field `answers`: must be columns from 0 to 1, but is \('good',\)",
    ),
    "no answer": (Example({"text": "a"}), r"train row 2, field `answers`: .*at least one column"),
    "a number": (Example({"text": 5}, (1,)), "field `text`: must be text, but is 5"),
    "half a pair": (Example({"text": "\ud800"}, (1,)), "must be valid Unicode, but has half"),
    "no fields": (Example("a", (1,)), "field `fields`: must be a mapping, but is 'a'"),
    "choices": (Example({"text": "a"}, (1,), ("x", "y")), "left out, as the task has labels"),
    "group": (Example({"text": "a"}, (1,), group=3), "field `group`: must be text, but is 3"),
    "no row": ({"text": "a"}, r"own, field `train\[1\]`: must be an Example, but is \{'text'"),
}
ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": 5}, "load_task: `name` must be text, but is 5"),
    "no template": ({"template": ""}, "`template` must name at least one field, but is ''"),
    "seed below": ({"seed": -1}, "`seed` must be at least 0, but is -1"),
    "seed of text": ({"seed": "a"}, "`seed` must be a whole number, but is 'a'"),
    "shots of a fraction": ({"shots": 1.5}, "`shots` must be a whole number, but is 1.5"),
    "shots of text": ({"shots": "3"}, "`shots` must be a whole number, but is '3'"),
    "a word": ({"skip_bad_rows": "no"}, "`skip_bad_rows` must be true or false, but is 'no'"),
    "folder": ({"data_dir": 7}, "`data_dir` must be text, but is 7"),
    "options": ({"options": 5}, "`options` must be a mapping, but is 5"),
}


def test_a_task_of_the_right_form_is_taken() -> None:
    check_task(TASK)
    check_task(replace(TASK, train=list(ROWS), format=replace(FORMAT, labels=["bad", "good"])))


@pytest.mark.parametrize("name", FORMATS)
def test_a_wrong_format_is_named(name: str) -> None:
    change, text = FORMATS[name]
    with pytest.raises(DataError, match=text):
        check_task(replace(TASK, format=replace(FORMAT, **change)), "own")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_wrong_row_is_named(name: str) -> None:
    row, text = EXAMPLES[name]
    with pytest.raises(DataError, match=text):
        check_task(replace(TASK, train=(ROWS[0], row)), "own")


def test_rows_that_can_be_read_once_are_refused() -> None:
    rows: Any = (row for row in ROWS)
    with pytest.raises(DataError, match="own, field `train`: must be a tuple of rows, but is <gen"):
        check_task(replace(TASK, train=rows), "own")


@pytest.mark.parametrize(
    ("choices", "text"), [((), "at least one text"), (("x", 7), "a tuple of texts")]
)
def test_wrong_choices_of_a_row_are_named(choices: Any, text: str) -> None:
    row = Example({"text": "a"}, (0,), choices)
    with pytest.raises(DataError, match=f"train row 1, field `choices`: must be {text}"):
        check_task(Task(replace(FORMAT, labels=()), (row,), (), (row,)))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_wrong_argument_of_load_task_is_named(name: str) -> None:
    change, text = ARGUMENTS[name]
    with pytest.raises((DataError, RecipeError), match=text):
        load_task(**{"name": "bundled/sentiment", **change})
