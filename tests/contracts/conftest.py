"""Small tasks and runs for the contracts."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import pytest

from backbones import KINDS
from contracts.support import Support, settle
from softprompts.examples import Example, TaskFormat
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.presets import METHODS
from softprompts.recipes.resolving import resolve
from softprompts.tasks.base import Task
from softprompts.training.pack import cut

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
    instruction="Say how it was.",
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


@pytest.fixture(scope="session")
def tasks(task: Task) -> dict[str, Task]:
    """Return two tasks of different sizes and labels."""
    format = replace(
        task.format,
        name="other",
        labels=("no", "yes"),
        verbalizer={"no": "bad", "yes": "good"},
        templates={**task.format.templates, "linear": "{aspect} {sep} {text}"},
    )
    pairs = tuple(replace(row, answers=(i % 2,)) for i, row in enumerate(rows(5)))
    return {"one": task, "two": replace(task, format=format, train=pairs, validation=pairs)}


NAMED = {
    "split": {"method": "prompt-tuning", "position": {"split": 1}},
    "residual-deep-pool-len": {
        "method": "p-tuning-v2",
        "rows": {"kind": "residual", "bottleneck": 6, "gain": 0.5},
        "pool": {"kind": "attention", "size": 2},
        "active_length": "instance",
    },
    "split-pos-len": {"method": "adap-ins-pos", "active_length": {"kind": "task", "start": 2}},
}
"""Prompts that are no presets: what they override."""


YARDSTICKS = ("fine-tuning", "lora")
"""Methods that train a copy of the backbone instead of a prompt."""

UNTRAINED = tuple(name for name, preset in METHODS.items() if not preset.is_trained)
"""Methods that train nothing."""


def covering(cells, strength=2, about=tuple):
    """Mark as slow all cells but some that have, among them, every pair of values there is.

    With `strength` 1 they have every value; `about` says which values a cell has. Of those that
    are slow, two of three are thorough instead, for `make thorough`.
    """
    order, seen, kept = list(range(len(cells))), set(), set()
    random.Random(0).shuffle(order)
    for number in order:
        values = set(combinations(enumerate(about(cells[number])), strength))
        if values - seen:
            kept.add(number)
            seen |= values
    marks = (pytest.mark.slow, pytest.mark.thorough, pytest.mark.thorough)
    place = {number: place for place, number in enumerate(order)}  # no value has a share of its own
    return [
        cell if number in kept else pytest.param(*cell, marks=marks[place[number] % 3])
        for number, cell in enumerate(cells)
    ]


def run_config(backbone, method, readout, **training):
    """Return a resolved run for a backbone that is loaded already."""
    prompt = {"method": method}
    if method not in ("head-only", *YARDSTICKS, *UNTRAINED):
        prompt["length"] = 4
    if method in ("residual", "residual-dynamic"):
        prompt["rows"] = {"bottleneck": 6, "gain": 0.5}  # at 0 the network would hide
    if method == "in-context" and backbone.context_length is None:
        prompt["num_demonstrations"] = 2
    prompt |= NAMED.get(method, {})
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


def shares_of(member, backbone):
    """Return the next update's micro-batches, each with what regularizes it."""
    return [share for _, group in cut([member], backbone) for share in group]


def parts_of(member, backbone):
    """Return the next update's micro-batches, each with the weight of one of its examples."""
    return [(share.part, share.weight) for share in shares_of(member, backbone)]


SUPPORT = Support()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Write on a test's report which cell of the support table it is about."""
    report = yield
    params = item.callspec.params if hasattr(item, "callspec") else {}
    is_cell = item.path.name == "test_contracts.py" and {"kind", "method"} <= set(params)
    if call.when == "call" and is_cell:
        cell = (item.originalname, params["kind"], params["method"])
        report.user_properties.append(("cell", cell))
    return report


def pytest_runtest_logreport(report):
    """Take note of what became of a cell, in whichever process it was tested."""
    for name, value in report.user_properties:
        if name == "cell" and report.when == "call":
            test, kind, method = value
            SUPPORT.add(test, (kind, method), report.passed)


def pytest_sessionfinish(session):
    """Write the support table, or compare those of its cells that have been tested."""
    problem = settle(SUPPORT, list(METHODS), list(KINDS))
    if problem:
        session.config.get_terminal_writer().line(f"\n{problem}", red=True)
        session.exitstatus = 1
