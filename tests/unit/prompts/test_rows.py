"""Rows: formulas, counts, ablations and identities."""

import pytest
import torch
from torch.nn import functional

from softprompts.errors import PromptError
from softprompts.prompts.rows.plain import PlainRows
from softprompts.prompts.rows.residual import ResidualRows

LENGTH, HIDDEN, BOTTLENECK = 5, 8, 3


def initial():
    return torch.randn(LENGTH, HIDDEN, generator=torch.Generator().manual_seed(3))


def residual(**options):
    draws = torch.Generator().manual_seed(4)
    return ResidualRows(initial(), draws, bottleneck=BOTTLENECK, **options)


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_plain_rows_are_their_parameters():
    rows = PlainRows(initial(), torch.Generator())
    assert torch.equal(rows(), initial())
    assert count(rows) == LENGTH * HIDDEN


def test_plain_rows_of_length_zero_have_nothing_to_train():
    assert count(PlainRows(torch.zeros(0, HIDDEN), torch.Generator())) == 0


def test_residual_rows_follow_the_formula():
    rows = residual()
    net = rows.branch[0]
    p = rows.weight
    for i in range(LENGTH):
        hidden = torch.relu(net.down[0].T @ p[i] + net.down_bias[0, 0])
        out = net.up[0].T @ hidden + net.up_bias[0, 0]
        expected = p[i] + functional.layer_norm(out, (HIDDEN,), net.gain[0, 0], net.offset[0, 0])
        torch.testing.assert_close(rows()[i], expected)


def test_residual_count_is_the_papers_plus_biases():
    d, m, n = HIDDEN, BOTTLENECK, LENGTH
    assert count(residual()) == d * n + 2 * d * m + 2 * d + m + d


def test_zero_layer_norm_gives_exactly_plain_rows():
    rows = residual()
    with torch.no_grad():
        rows.branch[0].gain.zero_()
        rows.branch[0].offset.zero_()
    assert torch.equal(rows(), initial())


def test_one_network_per_row_keeps_rows_apart():
    rows = residual(is_shared=False)
    assert count(rows) == LENGTH * HIDDEN + LENGTH * (
        2 * HIDDEN * BOTTLENECK + 2 * HIDDEN + BOTTLENECK + HIDDEN
    )
    (rows()[2] * torch.arange(HIDDEN)).sum().backward()
    gradient = rows.branch[0].down.grad
    assert gradient[2].abs().sum() > 0
    assert gradient[[0, 1, 3, 4]].abs().sum() == 0


def test_depth_two_has_weights_of_its_own():
    rows = residual(depth=2)
    first, second = rows.branch
    assert first.down is not second.down
    assert not torch.equal(first.down, second.down)
    torch.testing.assert_close(rows(), rows.weight + second(first(rows.weight, None), None))


def test_no_skip_no_layer_norm_and_tanh():
    rows = residual(has_skip=False, has_layer_norm=False, activation="tanh")
    net = rows.branch[0]
    expected = torch.tanh(rows.weight @ net.down[0] + net.down_bias[0]) @ net.up[0] + net.up_bias[0]
    torch.testing.assert_close(rows(), expected)


def test_dropout_draws_from_its_generator_and_stops_in_evaluation():
    rows = residual(dropout=0.5, has_layer_norm=False)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = rows(torch.Generator().manual_seed(1))
    assert torch.equal(first, rows(torch.Generator().manual_seed(1)))
    assert not torch.equal(first, rows(torch.Generator().manual_seed(2)))
    assert torch.equal(rows(None), rows(None))
    branch = (first - rows.weight).detach()
    clean = (rows(None) - rows.weight).detach()
    dropped = branch == 0
    assert 0 < dropped.float().mean() < 1
    torch.testing.assert_close(branch[~dropped], 2 * clean[~dropped])
    assert torch.equal(before, torch.random.get_rng_state())


def test_residual_rows_need_a_row():
    with pytest.raises(PromptError, match="at least 1 for residual rows, but is 0"):
        ResidualRows(torch.zeros(0, HIDDEN), torch.Generator())
