"""The pool with weights per task."""

from __future__ import annotations

import pytest
import torch

from softprompts.errors import PromptError
from softprompts.prompts.pools.task import TaskPool
from softprompts.prompts.rows.plain import PlainRows
from softprompts.seeding import generator


def sets(count=3):
    draws = generator(0, "test")
    return [PlainRows(torch.randn(4, 6, generator=draws), draws) for _ in range(count)]


def test_rows_are_the_mean_of_the_sets_at_first():
    pool = TaskPool(sets(), 0, generator(0, "pool"), size=3)
    rows, weights = pool(5, None, None)
    assert rows.shape == (5, 4, 6)
    assert weights.shape == (5, 3)
    torch.testing.assert_close(weights, torch.full((5, 3), 1 / 3))
    torch.testing.assert_close(rows[4], pool.bake().mean(dim=0))


def test_rows_are_mixed_by_the_softmax_of_the_logits():
    pool = TaskPool(sets(), 0, generator(0, "pool"), size=3)
    logits = torch.tensor([0.5, -1.0, 2.0])
    with torch.no_grad():
        pool.logits.copy_(logits)
    rows, weights = pool(2, None, None)
    expected = sum(w * s for w, s in zip(logits.softmax(0), pool.bake(), strict=True))
    torch.testing.assert_close(rows[0], expected)
    torch.testing.assert_close(rows[1], expected)
    torch.testing.assert_close(weights[1], logits.softmax(0))


def test_one_logit_far_ahead_is_its_set_alone():
    pool = TaskPool(sets(), 0, generator(0, "pool"), size=3)
    with torch.no_grad():
        pool.logits[1] = 200.0
    assert torch.equal(pool(1, None, None)[0][0], pool.bake()[1])


def test_sets_and_logits_get_gradients():
    pool = TaskPool(sets(), 0, generator(0, "pool"), size=3)
    rows, _ = pool(2, None, None)
    rows.square().sum().backward()
    assert all(bool(p.grad.any()) for p in pool.parameters())
    assert pool.needs_instances is False
    assert pool.task_tensors == ("logits",)


def test_two_tasks_share_sets_and_not_logits():
    shared = sets()
    one, two = (TaskPool(shared, 0, generator(0, "pool"), size=3) for _ in range(2))
    assert all(a is b for a, b in zip(one.sets, two.sets, strict=True))
    assert one.logits is not two.logits


def test_another_number_of_sets_is_refused():
    with pytest.raises(PromptError, match=r"`prompt.pool.size` must be 3, but is 4"):
        TaskPool(sets(), 0, generator(0, "pool"), size=4)
