"""Rows that are sums of words."""

from __future__ import annotations

import torch

from softprompts.prompts.rows.superposition import SuperpositionRows
from softprompts.recipes.resolving import resolve_prompt
from softprompts.recipes.schema import PromptConfig
from softprompts.seeding import generator
from softprompts.training.prompt_building import build_prompt


def made(unit=None, length=4):
    draws = generator(0, "test")
    initial, words = torch.randn(length, 6, generator=draws), torch.randn(9, 6, generator=draws)
    return SuperpositionRows(initial, draws, words=words, unit=unit), initial, words


def test_rows_are_the_sum_in_float64():
    for unit in (None, torch.tensor(0.25)):
        rows, initial, words = made(unit)
        with torch.no_grad():
            rows.weight.normal_(generator=generator(1, "test"))
        rows.double()
        expected = rows.weight @ words.double()
        if unit is not None:
            expected = expected + initial.double()
        torch.testing.assert_close(rows(), expected, atol=1e-12, rtol=1e-12)


def test_absolute_rows_start_near_the_mean_of_the_words_and_apart():
    rows, _, words = made()
    assert (rows() - words.mean(dim=0)).norm() < 0.3 * words.norm()
    assert len({tuple(row.tolist()) for row in rows()}) == 4


def test_only_weights_are_trained_and_words_are_of_the_vocabulary(tiny):
    backbone = tiny("bert")
    config = PromptConfig(method="superposition", length=3, rows={"num_words": 7})
    prompts = [build_prompt(resolve_prompt(config), backbone, (), seed) for seed in (0, 0, 1)]
    rows = prompts[0].pool.rows
    assert [(name, tuple(p.shape)) for name, p in rows.named_parameters()] == [("weight", (3, 7))]
    table = backbone.embed(torch.arange(backbone.vocabulary_size)).float()
    for word in rows.words:
        assert (table == word).all(dim=1).any()
    assert len({tuple(word.tolist()) for word in rows.words}) == 7
    assert torch.equal(prompts[1].pool.rows.words, rows.words)
    assert not torch.equal(prompts[2].pool.rows.words, rows.words)
