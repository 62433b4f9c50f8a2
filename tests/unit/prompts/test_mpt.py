"""Rows that tasks share, times a factor of each task's own; peft as an oracle."""

from __future__ import annotations

import pytest
import torch

from softprompts.errors import PromptError
from softprompts.prompts.pools.mpt import MptPool
from softprompts.prompts.rows.plain import PlainRows
from softprompts.seeding import generator


def pool(rank=1, length=4, hidden=6):
    draws = generator(0, "test")
    rows = PlainRows(torch.randn(length, hidden, generator=draws), draws)
    return MptPool([rows], 0, generator(0, "pool"), rank=rank)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_factor_starts_at_one(rank):
    own = pool(rank)
    rows, weights = own(5, None, None)
    assert weights is None
    assert rows.shape == (5, 4, 6)
    assert torch.equal(rows[2], own.sets[0]())
    assert torch.equal(own.bake()[0], own.sets[0]())


@pytest.mark.parametrize("rank", [1, 3])
def test_rows_are_the_product_in_float64(rank):
    own = pool(rank).double()
    with torch.no_grad():
        for part in (own.left, own.right):
            part.normal_(generator=generator(1, "test"))
    factor = sum(torch.outer(own.left[:, k], own.right[k]) for k in range(rank))
    expected = own.sets[0]() * factor
    torch.testing.assert_close(own(2, None, None)[0][1], expected, atol=1e-12, rtol=1e-12)


def test_rows_are_those_of_peft():
    peft = pytest.importorskip("peft")
    from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding

    config = peft.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=4,
        token_dim=6,
        num_transformer_submodules=1,
        num_tasks=2,
        num_ranks=3,
    )
    theirs = MultitaskPromptEmbedding(config, torch.nn.Embedding(9, 6))
    own = pool(3)
    with torch.no_grad():
        own.sets[0].weight.copy_(theirs.embedding.weight)
        own.left.copy_(theirs.prefix_task_cols[1])
        own.right.copy_(theirs.prefix_task_rows[1])
        found = theirs(torch.arange(4)[None].expand(2, -1), torch.tensor([1, 1]))
    torch.testing.assert_close(own(2, None, None)[0], found, atol=1e-7, rtol=1e-6)


def test_several_sets_are_refused():
    draws = generator(0, "test")
    sets = [PlainRows(torch.randn(2, 3, generator=draws), draws) for _ in range(2)]
    with pytest.raises(PromptError, match=r"`prompt\.pool\.size` must be 2, but is 1"):
        MptPool(sets, 0, draws)
