"""Orders, cuts and batches, by their properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from softprompts.encoding.inputs import EncodedExample, EncodedInput
from softprompts.training.batching import by_length
from softprompts.training.mixing import epoch_order, update_indices


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_every_epoch_sees_every_example_once(count, size, seed):
    per_epoch = -(-count // size)
    for epoch in range(2):
        seen = [
            i
            for step in range(epoch * per_epoch, (epoch + 1) * per_epoch)
            for i in update_indices(count, size, seed, step)
        ]
        assert sorted(seen) == list(range(count))
        assert seen == list(epoch_order(count, seed, epoch))


def test_orders_differ_by_epoch_and_seed():
    orders = {epoch_order(50, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def example(length, inputs=1):
    item = EncodedInput((1,) * length, (0,) * length, (3,) * length, 0, length)
    return EncodedExample((item,) * inputs, 2, (0,), False)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 5)), max_size=40))
def test_evaluation_batches_hold_every_example_and_keep_their_limits(sizes):
    examples = [example(*size) for size in sizes]
    batches = by_length(examples, max_tokens=512, max_inputs=8)
    assert sorted(i for batch in batches for i in batch) == list(range(len(examples)))
    widths = [max(sizes[i][0] for i in batch) for batch in batches]
    assert widths == sorted(widths, reverse=True)
    for batch, width in zip(batches, widths, strict=True):
        inputs = sum(sizes[i][1] for i in batch)
        assert len(batch) == 1 or (inputs <= 8 and inputs * width <= 512)
