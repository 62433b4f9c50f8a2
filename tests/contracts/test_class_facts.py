"""What a class says of itself is what it does, and what recipes are checked by."""

from __future__ import annotations

import inspect
from typing import final

import pytest
import torch

from contracts.conftest import run_config
from softprompts.errors import RecipeError
from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import Edges, Position
from softprompts.prompts.prompt import FixedActiveLength, FixedPosition
from softprompts.prompts.registry import ACTIVE_LENGTHS, POSITIONS
from softprompts.readouts.registry import READOUTS
from softprompts.recipes.component_fields import COMPONENTS
from softprompts.recipes.parsing import parse_run
from softprompts.registry import Entry, Option
from softprompts.regularizers.registry import PERTURBATIONS, REGULARIZERS
from softprompts.tasks.templates import readout_names
from softprompts.training.building import build_model

RUN = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}


@final
class Wrapped(Position):
    """A fixed position inside another class, as another package may have it."""

    def __init__(self, length, width, generator, *, split=None):
        super().__init__(length, width, generator)
        self.inner = FixedPosition(length, split=split)

    def forward(self, edges, instances, draws):
        return self.inner(edges, instances, draws)


@pytest.fixture
def wrapped(monkeypatch):
    entry = Entry("wrapped", f"{__name__}:Wrapped", options={"split": Option(int | None, None)})
    monkeypatch.setitem(POSITIONS._entries, "wrapped", entry)


@pytest.mark.parametrize("kind", ["fixed", "wrapped"])
@pytest.mark.parametrize(
    ("section", "fields", "match"),
    [
        ("training", {"temperature": {"start": 3.0}}, "`training.temperature` must be left out"),
        ("prompt", {"instance": "embeddings"}, "`prompt.instance` must be left out"),
        ("prompt", {"split": 11}, "`prompt.position.split` must be at most .* 10, but is 11"),
        ("task", {"template": "{prompt} {text}"}, r"must have `\{prompt\}` 0 times unless"),
    ],
)
def test_a_position_of_another_package_is_checked_alike(wrapped, kind, section, fields, match):
    fields = dict(fields)
    position = {"kind": kind}
    if "split" in fields:
        position["split"] = fields.pop("split")
    data = {**RUN, "prompt": {"position": position}}
    data[section] = {**data.get(section, {}), **fields}
    with pytest.raises(RecipeError, match=match):
        parse_run(data)


@pytest.mark.parametrize("registry", [POSITIONS, ACTIVE_LENGTHS])
def test_what_draws_says_so(registry, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Draws, "gumbel", lambda self, name, width: asked.append(name) or torch.zeros(2, width)
    )
    draws = Draws(0, 0, 0, torch.arange(2), 2)
    for name in registry.names():
        kind = registry.load(name)
        part = kind(3, 4, torch.Generator())
        marks = torch.zeros(2, 1 if getattr(kind, "needs_marks", False) else 0).long()
        edges = Edges(torch.zeros(2).long(), torch.ones(2).long(), marks)
        given = edges if registry is POSITIONS else 2
        asked.clear()
        part(given, torch.ones(2, 4), draws)
        assert kind.draws == bool(asked), name
    assert not FixedActiveLength.draws


@pytest.mark.parametrize(
    ("kind", "readout"), [("bert", "linear"), ("bert", "cloze"), ("gpt2", "text")]
)
def test_a_readout_says_whether_it_is_trained(tiny, task, kind, readout):
    model = build_model(run_config(tiny(kind), "prompt-tuning", readout), tiny(kind), task.format)
    assert READOUTS.load(readout).has_parameters == bool(list(model.readout.parameters()))
    assert {*readout_names(), "writing"} == set(READOUTS.names())
    for entry in READOUTS:
        assert entry.facts == {name: getattr(entry.load(), name) for name in entry.facts}


def test_regularizers_say_what_they_need_and_perturbations_whether_they_draw():
    facts = {
        k: (REGULARIZERS.load(k).needs_rows, REGULARIZERS.load(k).needs_embeddings)
        for k in REGULARIZERS.names()
    }
    assert facts == {
        "ptp": (False, False),
        "vocabulary-distance": (True, True),
        "row-norm": (True, False),
    }
    assert [k for k in PERTURBATIONS.names() if not PERTURBATIONS.load(k).draws] == [
        "word-substitution"
    ]


OPTIONS = [
    (kind, entry.name)
    for kind, registry in COMPONENTS.items()
    for entry in registry
    if entry.options
]


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_options_of_an_entry_are_those_of_its_constructor(kind, name):
    entry = COMPONENTS[kind].entry(name)
    taken = inspect.signature(entry.load()).parameters
    for option, about in entry.options.items():
        if option in ("warmup_fraction", "num_words"):  # builders make steps and words of them
            continue
        default = taken[option].default
        if about.default is ...:
            assert default is inspect.Parameter.empty
        elif default is not inspect.Parameter.empty:
            assert default == (
                tuple(about.default) if isinstance(default, tuple) else about.default
            )
