"""Rows that change how input tokens are embedded, and parameters with a rate of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, final

import pytest
import torch

from contracts.conftest import run_config
from softprompts.encoding.batch import collate
from softprompts.encoding.template import Role
from softprompts.errors import PromptError, RecipeError
from softprompts.prompts.depths.every_layer import EveryLayerDepth
from softprompts.prompts.depths.input import InputDepth
from softprompts.prompts.draws import Draws
from softprompts.prompts.pools.task import TaskPool
from softprompts.prompts.prompt import FixedPosition, Prompt
from softprompts.prompts.registry import ROWS
from softprompts.prompts.rows.base import Rows
from softprompts.prompts.rows.plain import PlainRows
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.registry import Entry
from softprompts.regularizers.perturbations.masking import Masking
from softprompts.training.building import build_model, build_optimizer
from softprompts.training.forward import Part, embed
from softprompts.training.objective import _inputs


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

    def embed(self, embeddings, ids, places):
        return embeddings + self.shift * ((ids > 0) & (places >= 0))[..., None]


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
    ones = torch.ones(2, 5).long()
    assert prompt.embed(embeddings, ones, ones) is embeddings


def test_rows_change_tokens_in_their_unit():
    embeddings, ids = torch.randn(2, 5, 4), torch.tensor([[0, 1, 2, 3, 4], [1, 1, 1, 1, 0]])
    for unit in (None, 0.25):
        prompt = prompt_of(Shifted, unit)
        places = torch.arange(5).expand(2, 5) - 1
        found = prompt.embed(embeddings, ids, places)
        expected = embeddings + (unit or 1.0) * ((ids > 0) & (places >= 0))[..., None]
        assert prompt.changes_tokens
        assert torch.equal(found, expected)
        found.sum().backward()
        assert prompt.pool.get_parameter(("rows.rows" if unit else "rows") + ".shift").grad.any()


@pytest.mark.parametrize("readout", ["text", "writing"])
def test_tokens_to_be_said_are_read_as_they_are(tiny, task, shifted, readout):
    backbone = tiny("llama")
    form = task.format
    if readout == "writing":
        form = replace(form, labels=(), verbalizer={}, templates={readout: "review: {text}"})
        form = replace(form, metrics=("exact-match",))
    given = run_config(backbone, "prompt-tuning", readout).model_dump(mode="json")
    given["prompt"]["rows"] = {"kind": "shifted"}
    if readout == "writing":
        given["readout"]["max_new_tokens"] = 5
    model = build_model(resolve(parse_run(given)), backbone, form)
    row = replace(task.validation[0], references=("hard to say",), answers=(0,))
    batch = collate([model.readout.encode(row)], backbone.tokenizer.pad_token_id)
    assert batch.continuations.any()
    changed = (embed(backbone, model.prompt, batch) != backbone.embed(batch.ids)).any(dim=-1)
    said = batch.roles == Role.LABEL
    assert said.any()
    assert torch.equal(changed, (batch.attention_mask > 0) & ~said & (batch.ids > 0))


def test_replaced_words_are_read_as_the_prompt_reads_them(tiny, task, shifted):
    backbone = tiny("bert")
    given = run_config(backbone, "prompt-tuning", "linear").model_dump(mode="json")
    given["prompt"]["rows"] = {"kind": "shifted"}
    model = build_model(resolve(parse_run(given)), backbone, task.format)
    batch = collate(list(map(model.readout.encode, task.train)), backbone.tokenizer.pad_token_id)
    draws = Draws(0, 0, 0, torch.arange(batch.size), batch.size, 1.0)
    inputs = _inputs(backbone, Part(model.prompt, model.readout, batch, draws))
    masked = Masking(backbone, fraction=1.0).perturb(inputs, 0, None).embeddings
    mask_id = backbone.tokenizer.mask_token_id
    touched = (masked != inputs.embeddings).any(dim=-1)
    assert touched.any()
    expected = embed(
        backbone, model.prompt, replace(batch, ids=batch.ids.masked_fill(touched, mask_id))
    )
    torch.testing.assert_close(masked, expected)


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
