"""Ends and trace of matrices whose spectrum is known."""

from __future__ import annotations

import math

import pytest
import torch

from softprompts.errors import RunFolderError
from softprompts.lab.analysis.curvature import estimate_trace, hessian_product, lanczos


def symmetric(size=30, seed=0):
    draws = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=draws, dtype=torch.float64)
    return (root + root.T) / 2


def start(size=30):
    return torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_as_many_products_as_numbers_give_both_ends():
    matrix = symmetric()
    values = torch.linalg.eigvalsh(matrix)
    found = lanczos(lambda vector: matrix @ vector, start(), 30)
    assert found.top == pytest.approx(float(values[-1]), rel=1e-10)
    assert found.bottom == pytest.approx(float(values[0]), rel=1e-10)
    assert found.num_products == 30


@pytest.mark.parametrize("count", [1, 4, 12])
def test_an_eigenvalue_lies_within_the_error_of_the_top(count):
    matrix = symmetric()
    values = torch.linalg.eigvalsh(matrix)
    found = lanczos(lambda vector: matrix @ vector, start(), count)
    assert found.num_products == count
    assert found.top <= float(values[-1]) + 1e-9
    assert float((values - found.top).abs().min()) <= found.top_error + 1e-9
    assert found.top_error > 0


def test_lanczos_stops_where_the_top_is_known_well_enough():
    values = torch.linspace(0.0, 1.0, 30, dtype=torch.float64)
    values[-1] = 50.0
    found = lanczos(lambda vector: values * vector, start(), 30, tolerance=1e-3)
    assert found.num_products < 8
    assert found.top == pytest.approx(50.0, rel=1e-3)


def test_lanczos_stops_where_its_space_is_whole():
    found = lanczos(lambda vector: 2 * vector, start(), 9)
    assert (found.top, found.bottom) == (pytest.approx(2.0), pytest.approx(2.0))
    assert found.num_products == 1
    assert lanczos(lambda vector: 0 * vector, start(), 9).top == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_products_that_are_not_finite_are_refused(value):
    with pytest.raises(RunFolderError, match="must be finite around its prompt, but are not"):
        lanczos(lambda vector: vector * value, torch.ones(3), 3)


def test_random_signs_give_the_trace_of_a_diagonal_matrix_exactly():
    values = torch.linspace(-1.0, 3.0, 30, dtype=torch.float64)
    draws = torch.Generator().manual_seed(0)
    found = estimate_trace(lambda vector: values * vector, start(), 3, draws)
    assert found[0] == pytest.approx(float(values.sum()), rel=1e-12)
    assert found[1] == pytest.approx(0.0, abs=1e-12)


def test_the_error_of_a_trace_is_that_of_its_mean():
    matrix, draws = symmetric(), torch.Generator().manual_seed(3)
    found = estimate_trace(lambda vector: matrix @ vector, start(), 400, draws)
    assert found[1] is not None
    off = matrix - torch.diag(matrix.diagonal())
    known = math.sqrt(2 * float(off.square().sum()) / 400)
    assert found[1] == pytest.approx(known, rel=0.15)
    assert abs(found[0] - float(matrix.trace())) < 4 * known
    one = estimate_trace(lambda vector: matrix @ vector, start(), 1, draws)
    assert one[1] is None


def test_differences_of_gradients_are_products_with_the_hessian():
    matrix = symmetric(6)

    def value(x):
        return x @ matrix @ x / 2 + (x**4).sum() + x[0] * x[1] * x[2]

    def gradient(x):
        leaf = (x + 0.3).requires_grad_()
        return torch.autograd.grad(value(leaf), [leaf])[0]

    known = torch.autograd.functional.hessian(value, torch.full((6,), 0.3, dtype=torch.float64))
    product = hessian_product(gradient, 1e-4)
    eye = torch.eye(6, dtype=torch.float64)
    found = torch.stack([product(7 * row) / 7 for row in eye])
    torch.testing.assert_close(found, known, atol=1e-6, rtol=0.0)
    assert not product(torch.zeros(6, dtype=torch.float64)).any()
