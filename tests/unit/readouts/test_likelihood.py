"""Likelihoods that are taken block by block are those of PyTorch's log-softmax."""

import pytest
import torch

from softprompts.readouts import likelihood
from softprompts.readouts.likelihood import log_likelihoods


def draw(dtype):
    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(11, 40, generator=draws)
    rows = torch.tensor([[0, 1], [3, 3], [10, 0], [0, 1], [7, 3]])  # some twice, some never
    tokens = torch.tensor([[5, 39], [0, 0], [1, 5], [5, 2], [8, 1]])
    slope = torch.randn(rows.shape, generator=draws)
    return logits.to(dtype).requires_grad_(), rows, tokens, slope


@pytest.mark.parametrize("rows_at_once", [1, 3, 4, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_values_and_gradients_are_those_of_pytorch(monkeypatch, dtype, rows_at_once):
    monkeypatch.setattr(likelihood, "_BLOCK_BYTES", rows_at_once * 40 * 4)
    logits, rows, tokens, slope = draw(dtype)
    found = log_likelihoods(logits, rows, tokens)
    exact = logits.detach().double().requires_grad_()
    expected = exact.log_softmax(dim=1)[rows, tokens]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=2e-6)
    (own,) = torch.autograd.grad(found, logits, slope)
    (other,) = torch.autograd.grad(expected, exact, slope.double())
    assert own.dtype == dtype
    rounding = 4e-3 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(own.double(), other, atol=1e-6, rtol=rounding)
    assert not own[[2, 4, 5, 6, 8, 9]].any()


def test_gradients_of_gradients():
    logits, rows, tokens, slope = draw(torch.float32)
    found = []
    for one in (
        log_likelihoods(logits, rows, tokens),
        logits.log_softmax(dim=1)[rows, tokens],
    ):
        (first,) = torch.autograd.grad((one * slope).sum(), logits, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), logits)[0])
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found)


def test_rows_of_minus_infinity_and_strides():
    logits, rows, tokens, slope = draw(torch.float32)
    held = logits.detach().masked_fill(torch.arange(40) % 7 == 3, -torch.inf)
    turned = held.T.contiguous().T.requires_grad_()  # columns lie behind each other
    found = log_likelihoods(turned, rows, tokens)
    (own,) = torch.autograd.grad(found, turned, slope)
    plain = held.clone().requires_grad_()
    expected = plain.log_softmax(dim=1)[rows, tokens]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(own, torch.autograd.grad(expected, plain, slope)[0])


def test_no_copy_of_the_logits_is_made(monkeypatch):
    """Only the gradient is as large as the logits, and it is of their dtype."""
    large = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor) and found.numel() >= 64 * 1000:
                large.append((found.dtype, found.untyped_storage().data_ptr()))
            return found

    monkeypatch.setattr(likelihood, "_BLOCK_BYTES", 4 * 1000 * 4)
    logits = torch.randn(64, 1000).bfloat16().requires_grad_()
    rows, tokens = torch.arange(64), torch.arange(64)
    with Watch():
        log_likelihoods(logits, rows, tokens).sum().backward()
    known = logits.untyped_storage().data_ptr()
    assert {dtype for dtype, _ in large} == {torch.bfloat16}
    assert len({place for _, place in large if place != known}) == 1
