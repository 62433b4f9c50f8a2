"""Small tasks and runs for the contracts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.tasks.base import Example, Task, TaskFormat

FORMAT = TaskFormat(
    name="custom",
    version=1,
    labels=("bad", "good", "unsure"),
    templates={
        "linear": "{text} {sep} {aspect}",
        "cloze": "{text} The {aspect} was {mask}.",
        "text": "review: {text} the {aspect} was",
    },
    verbalizer={"bad": "bad", "good": "good", "unsure": "hard to say"},
    metrics=("accuracy",),
)
TEXTS = (
    "the soup was cold and the waiter forgot us",
    "a walk along the river in the evening light",
    "we waited",
    "the train left on time and the seats were clean and the view was lovely all the way",
    "nobody answered the phone for a week",
    "good bread",
    "the second half of the book is better than the first half",
    "rain all day",
)


def rows(count: int) -> tuple[Example, ...]:
    """Return labelled rows of different lengths."""
    return tuple(
        Example(
            {"text": TEXTS[i % len(TEXTS)], "aspect": ("place", "price")[i % 2]},
            answers=(i % 3,),
            source=f"row {i}",
        )
        for i in range(count)
    )


@pytest.fixture(scope="session")
def task() -> Task:
    """Return a task with labels of one and of several tokens."""
    return Task(FORMAT, rows(9), (), rows(8))


@pytest.fixture(scope="session")
def choice_task() -> Task:
    """Return a task whose rows bring two or three choices."""
    format = replace(
        FORMAT,
        labels=(),
        templates={
            "linear": "{text} because {sep} {choice}",
            "cloze": "{text} because {mask}.",
            "text": "{text} because",
        },
        verbalizer={},
    )
    choices = ("it rained", "the road was closed for the day", "nobody came")
    examples = tuple(
        Example({"text": text}, answers=(i % 2,), choices=choices[: 2 + i % 2], source=f"row {i}")
        for i, text in enumerate(TEXTS)
    )
    return Task(format, examples, (), examples)


def run_config(backbone, method, readout, **training):
    """Return a resolved run for a backbone that is loaded already."""
    head_only = method == "head-only"
    prompt = {"method": method}
    if not head_only:
        prompt["length"] = 4
    if method.startswith("residual"):
        prompt["rows"] = {"bottleneck": 6}
    if method == "split":
        prompt = {"method": "prompt-tuning", "length": 4, "position": {"split": 1}}
    return resolve(
        parse_run(
            {
                "backbone": {"name": backbone.name},
                "task": {"name": "custom"},
                "readout": readout,
                "prompt": prompt,
                "training": {"steps": 3, "batch_size": 4, "selection": "last", **training},
            }
        )
    )
