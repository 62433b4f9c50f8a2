"""Rows beside tokens that are changed by a product of two thin matrices."""

from __future__ import annotations

import pytest
import torch

import softprompts as sp
from softprompts.errors import PromptError
from softprompts.prompts.rows.dept import DecomposedRows
from softprompts.seeding import generator


def rows(unit=None, **options):
    initial = torch.randn(3, 6, generator=generator(0, "test"))
    made = DecomposedRows(initial, generator(0, "rows"), rank=2, num_places=5, unit=unit, **options)
    with torch.no_grad():
        made.right.normal_(generator=generator(1, "test"))
    return made, initial


@pytest.mark.parametrize("tokens", [1, 5, 8])
@pytest.mark.parametrize("unit", [None, 0.25])
def test_rows_and_tokens_are_the_formula_in_float64(tokens, unit):
    made, initial = rows(None if unit is None else torch.tensor(unit))
    made.double()
    torch.testing.assert_close(made(), initial.double())
    embeddings = torch.randn(2, tokens, 6, generator=generator(2, "test")).double()
    found = made.embed(embeddings, *(torch.arange(tokens).expand(2, -1),) * 2)
    change = (unit or 1.0) * made.left @ made.right
    for place in range(tokens):
        expected = embeddings[:, place] + (change[place] if place < 5 else 0.0)
        torch.testing.assert_close(found[:, place], expected, atol=1e-12, rtol=1e-12)


def test_training_starts_at_the_plain_input_and_counts_are_those_of_the_page():
    initial = torch.randn(3, 6, generator=generator(0, "test"))
    made = DecomposedRows(initial, generator(0, "rows"), rank=2, num_places=5)
    embeddings = torch.randn(2, 4, 6)
    assert torch.equal(made.embed(embeddings, *(torch.arange(4).expand(2, -1),) * 2), embeddings)
    assert sum(p.numel() for p in made.parameters()) == 3 * 6 + 2 * (5 + 6)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_the_same_change_everywhere_is_a_shifted_embedding_table(tiny, kind):
    backbone = tiny(kind)
    config = sp.PromptConfig(method="dept", length=2, rows={"rank": 1, "num_places": 64})
    plain, moved = (sp.SoftPromptModel(backbone, config, seed=1).eval() for _ in range(2))
    shift = torch.randn(backbone.embedding_size, generator=generator(0, "test")) / 10
    with torch.no_grad():
        own = moved.prompt.pool.rows
        own.left.fill_(1.0)
        own.right.copy_(shift / own.unit)
    ids = torch.tensor([[5, 6, 7, 8], [9, 5, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    found = moved(ids, mask).last_hidden_state
    assert not torch.allclose(found, plain(ids, mask).last_hidden_state, atol=1e-3)
    alone = moved(ids[1:, :2], mask[1:, :2]).last_hidden_state
    torch.testing.assert_close(found[1:, :2], alone, atol=2e-5, rtol=1e-4)


def test_what_cannot_change_tokens_is_refused(tiny):
    for axis, value in (("depth", "every-layer"), ("pool", "task")):
        config = sp.PromptConfig.model_validate({"method": "dept", "length": 2, axis: value})
        with pytest.raises(PromptError, match=r"`prompt\.(rows|pool)` must"):
            sp.SoftPromptModel(tiny("gpt2"), config)
