"""Rows of low rank."""

from __future__ import annotations

import pytest
import torch

from softprompts.errors import PromptError
from softprompts.prompts.rows.low_rank import LowRankRows
from softprompts.seeding import generator


def initial(length=6, hidden=9):
    return torch.randn(length, hidden, generator=generator(0, "test"))


def test_absolute_rows_are_the_nearest_of_their_rank():
    rows = LowRankRows(initial(), generator(0, "rows"), rank=2)
    u, s, v = torch.linalg.svd(initial().double())
    nearest = u[:, :2] @ torch.diag(s[:2]) @ v[:2]
    torch.testing.assert_close(rows().double(), nearest, atol=1e-5, rtol=1e-5)
    assert torch.linalg.matrix_rank(rows()) == 2


def test_rows_are_the_product_in_float64():
    unit = torch.tensor(0.25)
    rows = LowRankRows(initial(), generator(0, "rows"), rank=3, unit=unit)
    with torch.no_grad():
        rows.right.normal_(generator=generator(1, "test"))
    rows.double()
    expected = initial().double() + 0.25 * rows.left @ rows.right
    torch.testing.assert_close(rows(), expected, atol=1e-12, rtol=1e-12)


def test_the_trainable_numbers_are_those_of_two_thin_matrices():
    rows = LowRankRows(initial(), generator(0, "rows"), rank=2, unit=torch.tensor(0.5))
    assert sum(p.numel() for p in rows.parameters()) == 2 * (6 + 9)
    assert LowRankRows(initial(3), generator(0, "rows")).left.shape == (3, 3)
    assert LowRankRows(initial(8), generator(0, "rows")).left.shape == (8, 4)


def test_a_rank_beyond_the_length_is_refused():
    with pytest.raises(PromptError, match=r"`prompt\.rows\.rank` must be at most 6, but is 7"):
        LowRankRows(initial(), generator(0, "rows"), rank=7)
