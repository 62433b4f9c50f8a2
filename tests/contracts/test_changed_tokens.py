"""Rows that change how input tokens are embedded, and parameters with a rate of their own."""

from __future__ import annotations

from typing import ClassVar, final

import pytest
import torch

from contracts.conftest import run_config
from softprompts.errors import PromptError, RecipeError
from softprompts.prompts.depths.every_layer import EveryLayerDepth
from softprompts.prompts.depths.input import InputDepth
from softprompts.prompts.pools.task import TaskPool
from softprompts.prompts.prompt import FixedPosition, Prompt
from softprompts.prompts.registry import ROWS
from softprompts.prompts.rows.base import Rows
from softprompts.prompts.rows.plain import PlainRows
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.registry import Entry
from softprompts.training.building import build_model, build_optimizer


@final
class Shifted(Rows):
    """Rows with one vector that is added to every token."""

    groups: ClassVar = {"shift": "tokens"}
    changes_tokens = True

    def __init__(self, initial, generator):
        super().__init__(initial, generator)
        self.weight = torch.nn.Parameter(initial.clone())
        self.shift = torch.nn.Parameter(torch.ones(initial.shape[1]))

    def forward(self, generator=None):
        return self.weight

    def embed(self, embeddings, ids):
        return embeddings + self.shift * (ids > 0)[..., None]


@pytest.fixture
def shifted(monkeypatch):
    """Register the rows, as another package would."""
    entry = Entry("shifted", f"{__name__}:Shifted", defaults={"tokens_rate_multiplier": 0.5})
    monkeypatch.setitem(ROWS._entries, "shifted", entry)


def prompt_of(kind, unit=None):
    units = None if unit is None else type("Units", (), {"embedding": unit})
    rows = InputDepth().build_rows(kind, kind, torch.randn(3, 4), lambda _: draws(), units)
    return Prompt(rows, FixedPosition(3))


def draws():
    return torch.Generator().manual_seed(0)


def test_other_rows_leave_tokens_alone():
    prompt, embeddings = prompt_of(PlainRows), torch.randn(2, 5, 4)
    assert not prompt.changes_tokens
    assert prompt.embed(embeddings, torch.ones(2, 5).long()) is embeddings


def test_rows_change_tokens_in_their_unit():
    embeddings, ids = torch.randn(2, 5, 4), torch.tensor([[0, 1, 2, 3, 4], [1, 1, 1, 1, 0]])
    for unit in (None, 0.25):
        prompt = prompt_of(Shifted, unit)
        found = prompt.embed(embeddings, ids)
        expected = embeddings + (unit or 1.0) * (ids > 0)[..., None]
        assert prompt.changes_tokens
        assert torch.equal(found, expected)
        found.sum().backward()
        assert prompt.pool.get_parameter(("rows.rows" if unit else "rows") + ".shift").grad.any()


def test_several_sets_and_rows_in_every_layer_leave_tokens_alone():
    sets = [Shifted(torch.randn(3, 4), draws()) for _ in range(2)]
    with pytest.raises(PromptError, match=r"`prompt.pool` must be 'single' .* but has 2 sets"):
        TaskPool(sets, 4, draws(), size=2)
    depth = EveryLayerDepth(
        [type("Slot", (), {"layer": 0, "kind": "self", "number": 0, "stack": "decoder"})], dict
    )
    with pytest.raises(PromptError, match=r"with depth every-layer, .* but is Shifted"):
        depth.build_rows(Shifted, Shifted, torch.randn(3, 4), lambda _: draws())


@pytest.mark.parametrize(("said", "rate"), [(None, 0.05), ({"tokens": 0.2}, 0.02)])
def test_a_further_group_has_its_own_rate(tiny, task, shifted, said, rate):
    backbone = tiny("bert")
    given = run_config(backbone, "prompt-tuning", "linear").model_dump(mode="json")
    given["prompt"]["rows"] = {"kind": "shifted"}
    given["training"] |= {"learning_rate": None, "rate_multipliers": said}
    config = resolve(parse_run(given))
    assert config.training.rate_multipliers == (said or {"tokens": 0.5})
    assert resolve(config) == config
    model = build_model(config, backbone, task.format)
    optimizer = build_optimizer(config.training, model)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, rate, 0.01])
    (shift,) = optimizer.param_groups[1]["params"]
    assert len(shift) == backbone.embedding_size
    plain = run_config(backbone, "prompt-tuning", "linear")
    assert resolve(plain).training.rate_multipliers is None
    assert identity(config) != identity(plain)


def test_a_rate_of_a_group_that_is_not_there_is_refused():
    data = {
        "backbone": {"name": "minilm"},
        "task": {"name": "bundled/sentiment"},
        "training": {"rate_multipliers": {"tokens": 0.5}},
    }
    with pytest.raises(RecipeError, match=r"`training.rate_multipliers.tokens` must be .* is 0\.5"):
        parse_run(data)
